"""What is loaded from a dump into the key table: a key comes to those that stand, and takes no other's place.

``loaddata`` would write each row over the one that has its primary key. Keys have no use for that: a key is its id and
its creation time, whatever the ``row_id`` that it was dumped with.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from django_asherah import audit, engine, signals
from django_asherah.envelope.aead import wipe
from django_asherah.envelope.events import EventQueue
from django_asherah.envelope.interfaces import ignore_events
from django_asherah.envelope.newest import NewestRecords
from django_asherah.envelope.partition import is_storable, kind_of
from django_asherah.envelope.records import MAX_KEY_ID_LENGTH, EnvelopeKeyRecord, KeyMeta, decode_key, printable
from django_asherah.exceptions import AsherahError, InvalidRecordError, MetastoreError
from django_asherah.metastores.database import DatabaseMetastore

_WAY_OUT = "Load without key rows (loaddata --exclude django_asherah): values get the keys that this database has"


def add_key(alias: str, key_id: str, document: Any) -> bool:
    """Store a key in the key table of database ``alias``, unless it stands there; tell whether it was stored.

    Nothing is ever replaced. On PostgreSQL and MySQL a key is committed at once, as every key is, so that values can be
    sealed under it: a load that is undone leaves it there. What is no key, such as the row that the Rust SDK keeps for
    itself, is left out: it is about the table that it was dumped from.

    Args:
        alias: a database alias.
        key_id: the key's id.
        document: its record, as JSON was parsed. That says when it was created: the column depends on time zones.

    Raises:
        MetastoreError: another key has this id and creation time, or the key table failed.
        InvalidRecordError: the record can't be read, or the id is none of a key.
        KMSError, DecryptionError: it is this project's system key, and can't be opened.
    """
    if kind_of(key_id) is None:
        return False
    _require_id(key_id)
    record = _decode(key_id, document)
    meta = KeyMeta(key_id, record.created)
    metastore = DatabaseMetastore(alias)
    row = metastore.read(meta)  # Through the caller's connection: most often this needs no other.
    if row is not None:
        _require_same(alias, meta, record, row.record)
        return False
    if _is_system_key_in_use(alias, key_id):
        _require_opens(meta, record)
    if metastore.store(key_id, record):
        audit.record(signals.key_loaded, "loaded", key_id=key_id, created=record.created, database=alias)
        return True
    _require_same(alias, meta, record, partial(metastore.load, meta))
    return False


def _require_id(key_id: str) -> None:
    if len(key_id) > MAX_KEY_ID_LENGTH or not is_storable(key_id):
        shown = printable(key_id[:MAX_KEY_ID_LENGTH])
        raise InvalidRecordError(
            f"no key has the id {shown}, as it is too long or no text that databases can store. {_WAY_OUT}"
        )


def _decode(key_id: str, document: Any) -> EnvelopeKeyRecord:
    try:
        return decode_key(json.dumps(document))
    except (InvalidRecordError, TypeError, ValueError) as exc:
        raise InvalidRecordError(f"the record of key {printable(key_id)} can't be loaded: {exc}. {_WAY_OUT}") from exc


def _is_system_key_in_use(alias: str, key_id: str) -> bool:
    keys_alias, factory = engine.get_keys_database(), engine.get_factory()
    if keys_alias is None or factory.system_key_id != key_id:
        return False
    if keys_alias == alias:
        return True
    # Two aliases may lead to one table: a record is sealed with a nonce of its own, so the same newest one tells it.
    there = NewestRecords(DatabaseMetastore(alias), factory.system_keys.find_fault, EventQueue(ignore_events))
    newest = there.find(key_id, factory.clock())
    return newest is not None and newest == factory.system_keys.newest_records([key_id]).get(key_id)


def _require_opens(meta: KeyMeta, record: EnvelopeKeyRecord) -> None:
    # All new writes depend on the newest system key. One that can't be opened would stop them, and on PostgreSQL and
    # MySQL it would stay, whatever becomes of the load.
    try:
        wipe(engine.get_factory().kms.decrypt_key(record.key))
    except AsherahError as exc:
        exc.at(f"system key {meta} is not loaded, as this project can't open it. {_WAY_OUT}")
        raise


def _require_same(
    alias: str, meta: KeyMeta, record: EnvelopeKeyRecord, read: Callable[[], EnvelopeKeyRecord | None]
) -> None:
    standing = None
    with suppress(InvalidRecordError):  # A damaged row is not replaced either.
        standing = read()
    place = f"key {meta} in database {alias!r}"
    if standing is None or (standing.key, standing.parent_key_meta) != (record.key, record.parent_key_meta):
        raise MetastoreError(
            f"{place} is not the one that is to be loaded, and keys are never replaced: it was made independently, or "
            f"wrapped again. {_WAY_OUT}"
        )
    if record.revoked and not standing.revoked:
        raise MetastoreError(
            f"{place} is not revoked, but was when it was dumped: revoke it (asherah_revoke), then load again"
        )
