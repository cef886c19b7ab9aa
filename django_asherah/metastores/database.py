"""The metastore in a Django database: Asherah's ``encryption_key`` table.

Source of the statements: ``go/appencryption/pkg/persistence/sql.go`` of godaddy/asherah. Only the three
columns that every official SDK knows are touched, so a table that an SDK's own DDL made serves as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

from django.db import Error as DatabaseFailure
from django.db import IntegrityError, InterfaceError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, decode_key, encode_key
from django_asherah.exceptions import InvalidRecordError
from django_asherah.metastores.database_rows import DatabaseRows
from django_asherah.metastores.sql import (
    INSERT,
    IS_KEY,
    created_literal,
    failures_translated,
    private_connection,
    record_text,
)

T = TypeVar("T")
Work = Callable[[BaseDatabaseWrapper], T]
Row = tuple[str | bytes]

LOAD = f"SELECT {{record}} FROM encryption_key WHERE {IS_KEY}"
LOAD_MANY = "SELECT id, {record} FROM encryption_key WHERE {conditions}"
LOAD_LATEST = "SELECT {record} FROM encryption_key WHERE id = %s ORDER BY created DESC LIMIT 1"

KEYS_PER_QUERY = 400
"""Keys that one query asks for: SQLite may take 999 parameters, and a key is two of them."""


class DatabaseMetastore(DatabaseRows):
    """Key records in the ``encryption_key`` table of one database alias. Thread-safe, as connections are.

    Key rows must not hang on the caller's transaction: if it rolled back, what was encrypted under them
    elsewhere could never be read. So PostgreSQL and MySQL are written to through a private connection that
    commits at once, and inside a transaction read through one too. SQLite allows one writer, so there the
    caller's connection serves, and :meth:`is_committed` tells whether its transaction may yet take a row away.
    """

    def load(self, meta: KeyMeta) -> EnvelopeKeyRecord | None:
        """Return the record with exactly this key id and creation time, or None."""
        return self._record(self._read(lambda connection: _select_one(connection, meta)), str(meta))

    def load_many(self, metas: Sequence[KeyMeta]) -> dict[KeyMeta, EnvelopeKeyRecord]:
        """Return the records of those of these keys that there are, with one query for each 400."""
        starts = range(0, len(metas), KEYS_PER_QUERY)
        parts = [metas[start : start + KEYS_PER_QUERY] for start in starts]
        rows = [row for part in parts for row in self._read(partial(_select_many, metas=part))]
        found: dict[KeyMeta, EnvelopeKeyRecord] = {}
        for key_id, text in rows:
            with suppress(InvalidRecordError):
                record = decode_key(text)
                found[KeyMeta(key_id, record.created)] = record
        return found

    def load_latest(self, key_id: str) -> EnvelopeKeyRecord | None:
        """Return the record with the greatest creation time of this key id, or None."""
        row = self._read(lambda connection: _select(connection, LOAD_LATEST, [key_id]))
        return self._record(row, f"{key_id} (latest)")

    def store(self, key_id: str, record: EnvelopeKeyRecord) -> bool:
        """Insert ``record`` if its (key id, creation time) is free."""
        meta, text = KeyMeta(key_id, record.created), encode_key(record)
        with failures_translated(self.alias):
            shared = connections[self.alias]
            if shared.vendor == "sqlite":
                return self._store_in_callers_transaction(shared, meta, text)
            with private_connection(shared) as private:
                return (
                    _insert_on_mysql(private, meta, text) if private.vendor == "mysql" else _insert(private, meta, text)
                )

    def is_committed(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> bool:
        """Tell whether ``record`` is committed; False where only the caller's transaction may have it."""
        with failures_translated(self.alias):
            shared = connections[self.alias]
            if shared.vendor != "sqlite" or not _in_transaction(shared):
                return True
            if cast(Any, shared).is_in_memory_db() or _Stored(meta) in (hook[1] for hook in shared.run_on_commit):
                return False
            return not _in_transaction(shared) or self._others_see(shared, meta, record)

    def _store_in_callers_transaction(self, shared: BaseDatabaseWrapper, meta: KeyMeta, text: str) -> bool:
        stored = _insert(shared, meta, text)
        if stored and shared.in_atomic_block:
            transaction.on_commit(_Stored(meta), using=self.alias)
        return stored

    def _others_see(self, shared: BaseDatabaseWrapper, meta: KeyMeta, record: EnvelopeKeyRecord) -> bool:
        try:
            with private_connection(shared) as private:
                row = _select_one(private, meta)
        except DatabaseFailure:  # Most likely the caller's own lock on the file.
            return False
        return row is not None and self._record(row, str(meta)) == record

    def _record(self, row: Row | None, name: str) -> EnvelopeKeyRecord | None:
        if row is None:
            return None
        try:
            return decode_key(row[0])
        except InvalidRecordError as exc:
            exc.at(f"key {name} in database {self.alias!r}")
            raise

    def _read(self, work: Work[T]) -> T:
        with failures_translated(self.alias):
            shared = connections[self.alias]
            if shared.vendor != "sqlite" and _in_transaction(shared):
                with private_connection(shared) as private:
                    return work(private)
            try:
                return work(shared)
            except (OperationalError, InterfaceError):
                if not _was_lost(shared):
                    raise
                return work(shared)


@dataclass(frozen=True, slots=True)
class _Stored:
    """Stands among a transaction's commit hooks as long as the row that it has stored may be rolled back.

    It only spares a second look at the file: without it, nobody else would see the row either.
    """

    meta: KeyMeta

    def __call__(self) -> None:
        """Do nothing."""


def _select_one(connection: BaseDatabaseWrapper, meta: KeyMeta) -> Row | None:
    return _select(connection, LOAD, _parameters(connection, meta))


def _select_many(connection: BaseDatabaseWrapper, metas: Sequence[KeyMeta]) -> list[tuple[str, str | bytes]]:
    # No row values: MariaDB would not look them up by the primary key.
    statement = LOAD_MANY.format(record=record_text(connection.vendor), conditions=" OR ".join([IS_KEY] * len(metas)))
    with connection.cursor() as cursor:
        cursor.execute(statement, [part for meta in metas for part in _parameters(connection, meta)])
        rows: list[tuple[str, str | bytes]] = cursor.fetchall()
        return rows


def _parameters(connection: BaseDatabaseWrapper, meta: KeyMeta) -> list[str]:
    return [meta.key_id, created_literal(connection, meta.created)]


def _select(connection: BaseDatabaseWrapper, statement: str, parameters: list[str]) -> Row | None:
    with connection.cursor() as cursor:
        cursor.execute(statement.format(record=record_text(connection.vendor)), parameters)
        row: Row | None = cursor.fetchone()
        return row


def _insert(connection: BaseDatabaseWrapper, meta: KeyMeta, text: str) -> bool:
    with connection.cursor() as cursor:
        parameters = [*_parameters(connection, meta), text]
        # No exception for a duplicate: it would mark the caller's transaction as failed.
        cursor.execute(f"{INSERT} ON CONFLICT (id, created) DO NOTHING", parameters)
        return bool(cursor.rowcount)


def _insert_on_mysql(connection: BaseDatabaseWrapper, meta: KeyMeta, text: str) -> bool:
    # INSERT IGNORE would turn every other error into a warning and store what it cut off.
    try:
        with connection.cursor() as cursor:
            cursor.execute(INSERT, [*_parameters(connection, meta), text])
    except IntegrityError:
        if _select_one(connection, meta) is None:
            raise
        return False
    return True


def _in_transaction(connection: BaseDatabaseWrapper) -> bool:
    # sqlite3's own word covers a BEGIN that was sent by hand.
    begun = connection.in_atomic_block or not connection.get_autocommit()
    return begun or getattr(connection.connection, "in_transaction", False)


def _was_lost(connection: BaseDatabaseWrapper) -> bool:
    """Drop a connection that the server has closed; tell whether trying again may help."""
    if _in_transaction(connection):
        return False
    connection.close_if_unusable_or_obsolete()
    return connection.connection is None
