"""Look up rows of the key table by their names.

A key's row is looked for where it belongs, with one query. Only if it is not there is it looked for beside that place,
where sessions of other time zones have put theirs (:mod:`~django_asherah.metastores.shifts`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress

from django.db.backends.base.base import BaseDatabaseWrapper

from django_asherah.envelope.parts import parts_of
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, decode_key, printable
from django_asherah.exceptions import InvalidRecordError
from django_asherah.metastores.shifts import Row, created_of, fault_of, newest_of, pick
from django_asherah.metastores.sql import (
    IS_KEY,
    MAY_BE_KEY,
    created_literal,
    created_range,
    has_zones,
    in_utc,
    record_text,
    shifted_latest,
    stored_created,
)

WHERE = "SELECT id, {record}, {created} FROM encryption_key WHERE {conditions}"
LATEST = "id = %s AND created >= (SELECT {latest} FROM encryption_key AS same WHERE id = %s) ORDER BY created DESC"
LATEST_OF_MANY = (
    "id IN ({ids}) AND created >= (SELECT {latest} FROM encryption_key AS same "
    "WHERE same.id = encryption_key.id) ORDER BY id, created DESC"
)

KEYS_PER_SEARCH = 300
"""Keys that are looked for beside their places with one query."""


def select_one(connection: BaseDatabaseWrapper, meta: KeyMeta) -> Row | None:
    """Return the row of one key; what stands in its place if there is none, or None."""
    row = next(iter(_select(connection, IS_KEY, _parameters(connection, meta))), None)
    if row is not None and created_of(row) == meta.created:
        return row
    return select_shifted(connection, [meta]).get(meta, row)


def select_latest(connection: BaseDatabaseWrapper, key_id: str) -> Row | None:
    """Return the row of the newest key of one id, or None.

    Raises:
        InvalidRecordError: the newest row is no sound key.
    """
    newest = newest_of(_select(connection, LATEST, [key_id, key_id]))
    return _as_their_names_find_them(connection, [newest])[0] if newest else None


def select_latest_of_many(connection: BaseDatabaseWrapper, key_ids: Sequence[str]) -> list[Row]:
    """Return the row of the newest key of each of these ids that has any.

    Raises:
        InvalidRecordError: the newest row of one is no sound key.
    """
    rows = defaultdict(list)
    for row in _select(connection, LATEST_OF_MANY, list(key_ids), ids=", ".join(["%s"] * len(key_ids))):
        rows[row[0]].append(row)
    return _as_their_names_find_them(connection, [newest for each in rows.values() if (newest := newest_of(each))])


def select_many(connection: BaseDatabaseWrapper, metas: Sequence[KeyMeta]) -> dict[KeyMeta, EnvelopeKeyRecord]:
    """Return the readable records of those of these keys that there are."""
    parameters = [part for meta in metas for part in _parameters(connection, meta)]
    # No row values: MariaDB would not look them up by the primary key.
    rows = _select(connection, " OR ".join([IS_KEY] * len(metas)), parameters)
    found = _records(row for row in rows if created_of(row) == row[2])
    missing = [meta for meta in metas if meta not in found]
    return found | _records(select_shifted(connection, missing).values())


def select_shifted(connection: BaseDatabaseWrapper, metas: Sequence[KeyMeta]) -> dict[KeyMeta, Row]:
    """Return the rows of those of these keys that stand in or beside their places, with one query for each 300."""
    found: dict[KeyMeta, Row] = {}
    if not has_zones(connection.vendor):
        return found
    for part in parts_of(metas, KEYS_PER_SEARCH):
        parameters = [text for meta in part for text in (meta.key_id, *created_range(connection, meta.created))]
        found |= pick(_select(connection, " OR ".join([MAY_BE_KEY] * len(part)), parameters), part)
    return found


def _as_their_names_find_them(connection: BaseDatabaseWrapper, newest: list[Row]) -> list[Row]:
    """Return the rows that hold the keys of these ones' names: what is sealed under any other could never be opened."""
    for row in newest:
        if fault := fault_of(row, has_zones=has_zones(connection.vendor)):
            raise InvalidRecordError(f"key {printable(row[0])} (latest) in database {connection.alias!r}: {fault}")
    names = [_name_elsewhere(row) for row in newest]
    found = _select_named(connection, [name for name in names if name is not None])
    return [
        row if name is None else found.get(name, row)  # That is itself, or another of its name.
        for name, row in zip(names, newest, strict=True)
    ]


def _select_named(connection: BaseDatabaseWrapper, names: Sequence[KeyMeta]) -> dict[KeyMeta, Row]:
    """Return the rows of those of these keys that there are: for each, the one that :func:`select_one` returns."""
    if not names:
        return {}
    parameters = [part for name in names for part in _parameters(connection, name)]
    rows = _select(connection, " OR ".join([IS_KEY] * len(names)), parameters)
    in_place = {KeyMeta(row[0], row[2]): row for row in rows if created_of(row) == row[2]}
    return in_place | select_shifted(connection, [name for name in names if name not in in_place])


def _name_elsewhere(row: Row) -> KeyMeta | None:
    """Return the name that a row's record has, if the row does not stand in its place."""
    key_id, text, stored = row
    try:
        created = decode_key(text).created
    except InvalidRecordError:
        return None  # Whoever decodes it says why.
    return None if created == stored else KeyMeta(key_id, created)


def _records(rows: Iterable[Row]) -> dict[KeyMeta, EnvelopeKeyRecord]:
    found: dict[KeyMeta, EnvelopeKeyRecord] = {}
    for key_id, text, _ in rows:
        with suppress(InvalidRecordError):
            record = decode_key(text)
            found[KeyMeta(key_id, record.created)] = record
    return found


def _parameters(connection: BaseDatabaseWrapper, meta: KeyMeta) -> list[str]:
    return [meta.key_id, created_literal(connection, meta.created)]


def _select(connection: BaseDatabaseWrapper, conditions: str, parameters: list[str], **parts: str) -> list[Row]:
    vendor = connection.vendor
    conditions = conditions.format(latest=shifted_latest(vendor, "same.created"), **parts)
    statement = WHERE.format(record=record_text(vendor), created=stored_created(vendor), conditions=conditions)
    with connection.cursor() as cursor:
        cursor.execute(in_utc(connection, statement), parameters)
        return list(cursor.fetchall())
