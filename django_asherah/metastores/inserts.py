"""Insert rows into the key table where their places are free."""

from __future__ import annotations

from collections.abc import Mapping

from django.db import IntegrityError, OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, encode_key
from django_asherah.metastores.selects import select_many, select_one, select_shifted
from django_asherah.metastores.sql import INSERT, ROW, created_literal, in_utc

_DEADLOCK = 1213
_ATTEMPTS = 10

_SKIP_TAKEN = """
    SELECT COUNT(nextval(row_ids)) FROM pg_get_serial_sequence('encryption_key', 'row_id') AS row_ids,
    generate_series(nextval(row_ids), (SELECT MAX(row_id) FROM encryption_key))
"""


def insert_free(connection: BaseDatabaseWrapper, records: Mapping[KeyMeta, EnvelopeKeyRecord]) -> set[KeyMeta]:
    """Insert those of these records whose (key id, creation time) is free; return which those were.

    One that a session of another time zone has put beside its place is not free, either.

    No more than 300: a row is three parameters, of which SQLite may take 999.
    """
    standing = select_shifted(connection, list(records))
    records = {meta: record for meta, record in records.items() if meta not in standing}
    if not records:
        return set()
    return (_insert_on_mysql if connection.vendor == "mysql" else _insert)(connection, records)


def is_row_id_taken(failure: IntegrityError) -> bool:
    """Tell whether PostgreSQL's sequence gave out a ``row_id`` that is in use: ``loaddata`` sets it back.

    It does so to the greatest that its own snapshot has seen.
    """
    return "(row_id)" in str(failure)


def pass_row_ids(connection: BaseDatabaseWrapper) -> None:
    """Let PostgreSQL's sequence of ``row_id`` pass all that are in use."""
    with connection.cursor() as cursor:
        cursor.execute(_SKIP_TAKEN)  # No setval(): another writer may have taken a number in the meantime.


def _insert(connection: BaseDatabaseWrapper, records: Mapping[KeyMeta, EnvelopeKeyRecord]) -> set[KeyMeta]:
    # No exception for a duplicate: it would mark the caller's transaction as failed.
    if _send(connection, records, " ON CONFLICT (id, created) DO NOTHING") == len(records):
        return set(records)
    # A record is sealed with a nonce of its own: no two writers' are equal.
    return _standing_as(connection, records)


def _standing_as(connection: BaseDatabaseWrapper, records: Mapping[KeyMeta, EnvelopeKeyRecord]) -> set[KeyMeta]:
    standing = select_many(connection, list(records))
    return {meta for meta, record in records.items() if standing.get(meta) == record}


def _insert_on_mysql(connection: BaseDatabaseWrapper, records: Mapping[KeyMeta, EnvelopeKeyRecord]) -> set[KeyMeta]:
    # INSERT IGNORE would turn every other error into a warning and store what it cut off. ON DUPLICATE KEY UPDATE needs
    # the right to update, which whoever only makes keys need not have.
    try:
        _send_despite_deadlocks(connection, records)
    except IntegrityError:
        if len(records) > 1:
            return {meta for each in records.items() for meta in _insert_on_mysql(connection, dict([each]))}
        if select_one(connection, next(iter(records))) is None:
            raise
        return _standing_as(connection, records)
    return set(records)


def _send_despite_deadlocks(
    connection: BaseDatabaseWrapper, records: Mapping[KeyMeta, EnvelopeKeyRecord], attempts: int = _ATTEMPTS
) -> None:
    # InnoDB locks the gaps beside a duplicate, too, so that two writers may meet however well they keep to one order.
    # It has undone the statement of the one that it chose.
    try:
        _send(connection, records)
    except OperationalError as exc:
        if exc.args[0] != _DEADLOCK or attempts == 1:
            raise
        _send_despite_deadlocks(connection, records, attempts - 1)


def _send(connection: BaseDatabaseWrapper, records: Mapping[KeyMeta, EnvelopeKeyRecord], on_conflict: str = "") -> int:
    """Send one statement; return how many rows it has stored."""
    parameters: list[str] = []
    for meta, record in records.items():
        parameters += (meta.key_id, created_literal(connection, meta.created), encode_key(record))
    statement = ", ".join([INSERT, *[ROW] * (len(records) - 1)]) + on_conflict
    with connection.cursor() as cursor:
        cursor.execute(in_utc(connection, statement, writes=True), parameters)
        return int(cursor.rowcount)
