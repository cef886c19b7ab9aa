"""The metastore in a Django database: Asherah's ``encryption_key`` table.

Source of the statements: ``go/appencryption/pkg/persistence/sql.go`` of godaddy/asherah. Only the three
columns that every official SDK knows are touched, so a table that an SDK's own DDL made serves as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from django.db import Error as DatabaseFailure
from django.db import IntegrityError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from django_asherah.envelope.parts import parts_of
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, decode_key
from django_asherah.exceptions import InvalidRecordError
from django_asherah.metastores.connections import (
    T,
    Work,
    in_transaction,
    may_wait,
    private_connection,
    privately,
    read_committed,
)
from django_asherah.metastores.database_rows import DatabaseRows
from django_asherah.metastores.inherited import ensure_own
from django_asherah.metastores.inserts import insert_free, is_row_id_taken, pass_row_ids
from django_asherah.metastores.selects import select_latest, select_latest_of_many, select_many, select_one
from django_asherah.metastores.shifts import Row
from django_asherah.metastores.sql import failures_translated

KEYS_PER_QUERY = 400
"""Keys that one query asks for: SQLite may take 999 parameters, and a key is two of them."""

KEYS_PER_INSERT = 300
"""Keys that one statement stores: there, a key is three parameters."""


class DatabaseMetastore(DatabaseRows):
    """Key records in the ``encryption_key`` table of one database alias. Thread-safe, as connections are.

    Key rows must not hang on the caller's transaction: if it rolled back, what was encrypted under them
    elsewhere could never be read. So PostgreSQL and MySQL are written to through a private connection that
    commits at once, and inside a transaction read through one too, where the caller's own (on PostgreSQL alone) would
    not show the same: see :mod:`~django_asherah.metastores.connections`. SQLite allows one writer, so there the
    caller's connection serves, and :meth:`is_committed` tells whether its transaction may yet take a row away.
    """

    def load(self, meta: KeyMeta) -> EnvelopeKeyRecord | None:
        """Return the record with exactly this key id and creation time, or None."""
        record = self._record(self._read(partial(select_one, meta=meta)), str(meta))
        return record if record is not None and record.created == meta.created else None

    def load_many(self, metas: Sequence[KeyMeta]) -> dict[KeyMeta, EnvelopeKeyRecord]:
        """Return the records of those of these keys that there are, with one query for each 400."""
        found: dict[KeyMeta, EnvelopeKeyRecord] = {}
        for part in parts_of(metas, KEYS_PER_QUERY):
            found |= self._read(partial(select_many, metas=part))
        return found

    def load_latest(self, key_id: str) -> EnvelopeKeyRecord | None:
        """Return the record with the greatest creation time of this key id, or None.

        Raises:
            InvalidRecordError: the newest row is no sound key. :meth:`versions` has the others.
        """
        return self._record(self._read(partial(select_latest, key_id=key_id)), f"{key_id} (latest)")

    def load_latest_many(self, key_ids: Sequence[str]) -> dict[str, EnvelopeKeyRecord]:
        """Return the record with the greatest creation time of each of these ids, with one query for each 400.

        Raises:
            InvalidRecordError: the newest row of one is no sound key. :meth:`versions` has the others.
        """
        found: dict[str, EnvelopeKeyRecord] = {}
        for part in parts_of(key_ids, KEYS_PER_QUERY):
            for row in self._read(partial(select_latest_of_many, key_ids=part)):
                found[row[0]] = self._decode(row, f"{row[0]} (latest)")
        return found

    def store(self, key_id: str, record: EnvelopeKeyRecord) -> bool:
        """Insert ``record`` if its (key id, creation time) is free."""
        return bool(self.store_many({KeyMeta(key_id, record.created): record}))

    def store_many(self, records: Mapping[KeyMeta, EnvelopeKeyRecord]) -> set[KeyMeta]:
        """Insert those of these records whose (key id, creation time) is free, with one statement for each 300."""
        # In one order, whoever stores them: or two that store the same keys would wait for each other.
        ordered = [(meta, records[meta]) for meta in sorted(records, key=_name)]
        parts = [dict(part) for part in parts_of(ordered, KEYS_PER_INSERT)]
        with failures_translated(self.alias):
            shared = connections[self.alias]
            if shared.vendor == "sqlite":
                return self._store_in_callers_transaction(shared, parts)
            try:
                return privately(shared, partial(_insert_all, parts=parts))
            except IntegrityError as exc:
                if not is_row_id_taken(exc):
                    raise
            return privately(shared, partial(_insert_past_row_ids, parts=parts))

    def is_committed(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> bool:
        """Tell whether ``record`` is committed; False where only the caller's transaction may have it."""
        with failures_translated(self.alias):
            shared = connections[self.alias]
            if shared.vendor != "sqlite" or not in_transaction(shared):
                return True
            if cast(Any, shared).is_in_memory_db() or _was_stored_by(shared, meta):
                return False
            return not in_transaction(shared) or self._others_see(shared, meta, record)

    def may_wait(self) -> bool:
        """Tell whether this caller may wait for another thread that reads or stores keys.

        On PostgreSQL a caller in a transaction may not: it holds a connection that the other may be waiting for.
        """
        return may_wait(connections[self.alias])

    def _read(self, work: Work[T]) -> T:
        with failures_translated(self.alias):
            return read_committed(connections[self.alias], work)

    def _store_in_callers_transaction(
        self, shared: BaseDatabaseWrapper, parts: list[dict[KeyMeta, EnvelopeKeyRecord]]
    ) -> set[KeyMeta]:
        ensure_own(shared)
        stored = _insert_all(shared, parts)
        if stored and shared.in_atomic_block:
            transaction.on_commit(_Stored(frozenset(stored)), using=self.alias)
        return stored

    def _others_see(self, shared: BaseDatabaseWrapper, meta: KeyMeta, record: EnvelopeKeyRecord) -> bool:
        try:
            with private_connection(shared) as private:
                row = select_one(private, meta)
        except DatabaseFailure:  # Most likely the caller's own lock on the file.
            return False
        return row is not None and self._decode(row, str(meta)) == record

    def _record(self, row: Row | None, name: str) -> EnvelopeKeyRecord | None:
        return None if row is None else self._decode(row, name)

    def _decode(self, row: Row, name: str) -> EnvelopeKeyRecord:
        try:
            return decode_key(row[1])
        except InvalidRecordError as exc:
            exc.at(f"key {name} in database {self.alias!r}")
            raise


@dataclass(frozen=True, slots=True)
class _Stored:
    """Stands among a transaction's commit hooks as long as the rows that it has stored may be rolled back.

    It only spares a second look at the file: without it, nobody else would see the rows either.
    """

    metas: frozenset[KeyMeta]

    def __call__(self) -> None:
        """Do nothing."""


def _was_stored_by(shared: BaseDatabaseWrapper, meta: KeyMeta) -> bool:
    """Tell whether the transaction that is open has stored this key."""
    hooks = (hook[1] for hook in shared.run_on_commit)
    return any(isinstance(hook, _Stored) and meta in hook.metas for hook in hooks)


def _name(meta: KeyMeta) -> tuple[str, int]:
    return meta.key_id, meta.created


def _insert_past_row_ids(
    connection: BaseDatabaseWrapper, parts: list[dict[KeyMeta, EnvelopeKeyRecord]]
) -> set[KeyMeta]:
    pass_row_ids(connection)
    return _insert_all(connection, parts)


def _insert_all(connection: BaseDatabaseWrapper, parts: list[dict[KeyMeta, EnvelopeKeyRecord]]) -> set[KeyMeta]:
    return {meta for part in parts for meta in insert_free(connection, part)}
