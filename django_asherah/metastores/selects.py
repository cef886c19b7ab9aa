"""Look up rows of the key table by their names."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from django.db.backends.base.base import BaseDatabaseWrapper

from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, decode_key
from django_asherah.exceptions import InvalidRecordError
from django_asherah.metastores.sql import IS_KEY, created_literal, record_text

Row = tuple[str, str | bytes]
"""A key id, and its record's text."""

ONE = f"SELECT id, {{record}} FROM encryption_key WHERE {IS_KEY}"
MANY = "SELECT id, {record} FROM encryption_key WHERE {conditions}"
LATEST = "SELECT id, {record} FROM encryption_key WHERE id = %s ORDER BY created DESC LIMIT 1"
LATEST_OF_MANY = (
    "SELECT id, {record} FROM encryption_key WHERE id IN ({ids}) "
    "AND created = (SELECT MAX(same.created) FROM encryption_key AS same WHERE same.id = encryption_key.id)"
)


def select_one(connection: BaseDatabaseWrapper, meta: KeyMeta) -> Row | None:
    """Return the row of one key, or None."""
    return next(iter(_select(connection, ONE, _parameters(connection, meta))), None)


def select_latest(connection: BaseDatabaseWrapper, key_id: str) -> Row | None:
    """Return the row of the newest key of one id, or None."""
    return next(iter(_select(connection, LATEST, [key_id])), None)


def select_latest_of_many(connection: BaseDatabaseWrapper, key_ids: Sequence[str]) -> list[Row]:
    """Return the row of the newest key of each of these ids that has any."""
    return _select(connection, LATEST_OF_MANY, list(key_ids), ids=", ".join(["%s"] * len(key_ids)))


def select_many(connection: BaseDatabaseWrapper, metas: Sequence[KeyMeta]) -> dict[KeyMeta, EnvelopeKeyRecord]:
    """Return the readable records of those of these keys that there are."""
    parameters = [part for meta in metas for part in _parameters(connection, meta)]
    # No row values: MariaDB would not look them up by the primary key.
    rows = _select(connection, MANY, parameters, conditions=" OR ".join([IS_KEY] * len(metas)))
    found: dict[KeyMeta, EnvelopeKeyRecord] = {}
    for key_id, text in rows:
        with suppress(InvalidRecordError):
            record = decode_key(text)
            found[KeyMeta(key_id, record.created)] = record
    return found


def _parameters(connection: BaseDatabaseWrapper, meta: KeyMeta) -> list[str]:
    return [meta.key_id, created_literal(connection, meta.created)]


def _select(connection: BaseDatabaseWrapper, statement: str, parameters: list[str], **parts: str) -> list[Row]:
    with connection.cursor() as cursor:
        cursor.execute(statement.format(record=record_text(connection.vendor), **parts), parameters)
        return list(cursor.fetchall())
