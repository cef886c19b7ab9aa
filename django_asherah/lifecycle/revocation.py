"""Revoke: withdraw a key from new writes. It still opens what it sealed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

import msgspec

from django_asherah import audit, engine, signals
from django_asherah.envelope.partition import KeyKind
from django_asherah.envelope.records import KeyMeta
from django_asherah.exceptions import KeyNotFoundError, MetastoreError
from django_asherah.lifecycle.context import Context, get_context
from django_asherah.lifecycle.first import FirstOf
from django_asherah.lifecycle.keys import KeyInfo, keys_of_id

_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class RevocationReport:
    """What was revoked.

    Attributes:
        meta: the key.
        changed: False if it was revoked before.
        partitions: those whose new writes get another key: a thousand of them, and how many there are.
    """

    meta: KeyMeta
    changed: bool
    partitions: FirstOf[str]


@engine.key_rows_changing()
def revoke(key_id: str, created: int | None = None, *, dry_run: bool = False) -> RevocationReport:
    """Set ``Revoked`` in a key's record; if ``created`` is None, the latest one's that is not from the future.

    Processes notice within the revoke check interval. To take data off the key, re-encrypt it.

    Raises:
        KeyNotFoundError: there is no such key; the message names those that there are.
        MetastoreError: the metastore can't list its keys or replace a record, or fails.
    """
    context = get_context(replaces_records=True)
    key = _find(context, key_id, created)
    meta = key.meta
    changed = not _is_revoked(context, meta) if dry_run else _set_revoked(context, meta)
    if changed and not dry_run:
        audit.record(signals.key_revoked, "revoked", key_id=meta.key_id, created=meta.created)
    return RevocationReport(meta, changed, _affected_partitions(context, key))


def _find(context: Context, key_id: str, created: int | None) -> KeyInfo:
    known = keys_of_id(context, key_id)
    # The latest is the one that new writes use: neither another service's, whose key can have the same id, nor one that
    # a wrong clock has made, unless there is no other.
    for key in sorted(known, key=lambda key: (not key.ours, key.is_from_future)):
        if created in (None, key.meta.created):
            return key
    times = ", ".join(str(key.meta.created) for key in known[:5])
    there_are = f"of this id there are: {times}" if known else "there is no key of this id"
    raise KeyNotFoundError(f"no key {key_id} created {created or '(latest)'}; {there_are}")


def _is_revoked(context: Context, meta: KeyMeta) -> bool:
    row = context.table.read(meta)
    return row is not None and bool(row.record().revoked)


def _set_revoked(context: Context, meta: KeyMeta) -> bool:
    """Revoke; tell whether that changed anything."""
    for _ in range(_ATTEMPTS):
        row = context.table.read(meta)
        if row is None:
            raise KeyNotFoundError(f"key {meta} was deleted meanwhile")
        record = row.record()
        if record.revoked:
            return False
        if context.table.replace(row, msgspec.structs.replace(record, revoked=True)):
            return True
    raise MetastoreError(f"key {meta} could not be revoked: others keep changing its record")


def _affected_partitions(context: Context, key: KeyInfo) -> FirstOf[str]:
    found: FirstOf[str] = FirstOf()
    if key.kind is KeyKind.INTERMEDIATE:
        partitions: Iterable[str | None] = [key.partition]
    else:
        ids = (key_id for key_id, _ in groupby(context.table.children(key.meta), key=lambda row: row.key_id))
        partitions = (context.partition_of(key_id, key.meta) for key_id in ids)
    found.add_all(partition for partition in partitions if partition is not None)
    found.sort()
    return found
