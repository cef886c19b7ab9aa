"""Re-wrap: bring what wraps each system key in line with the settings. The key itself, its id and all data stay."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

import msgspec

from django_asherah import audit, signals
from django_asherah.envelope.records import KeyMeta
from django_asherah.exceptions import AsherahError, InvalidRecordError, KMSError, MetastoreError
from django_asherah.kms.regional import RegionalKMS, is_regional
from django_asherah.lifecycle.context import Context, get_context
from django_asherah.lifecycle.progress import Progress, tell_nobody


@dataclass(slots=True)
class RewrapReport:
    """What was re-wrapped, or with ``dry_run`` what needs it.

    Attributes:
        rewrapped: keys that have a new record.
        unchanged: keys that were right already.
        failed: keys that were left as they are, with the reason.
        unreadable: key ids of our system keys whose record can't be read, with the reason.
    """

    rewrapped: list[KeyMeta] = field(default_factory=list)
    unchanged: list[KeyMeta] = field(default_factory=list)
    failed: dict[KeyMeta, str] = field(default_factory=dict)
    unreadable: list[tuple[str, str]] = field(default_factory=list)


def rewrap(
    *,
    old_master_keys: Iterable[str] = (),
    allow_missing_regions: bool = False,
    dry_run: bool = False,
    progress: Progress = tell_nobody,
) -> RewrapReport:
    """Wrap every system key for exactly the configured regions; all or nothing for each key.

    Each new region has unwrapped the key before its record is replaced, and the record is replaced only if nobody
    else has changed it meanwhile. Safe to interrupt and to run again.

    Args:
        old_master_keys: names of master keys no longer configured that may unwrap this once, if no configured one can.
        allow_missing_regions: go on when a configured region does not answer.
        dry_run: try everything, and replace nothing.
        progress: is told how many more keys were dealt with.

    Raises:
        KMSError: the configured KMS has no regions.
        MetastoreError: the key table can't be read.
    """
    context = get_context(replaces_records=True)
    kms = context.factory.kms
    if not is_regional(kms):
        raise KMSError(f"{type(kms).__name__} wraps keys for no regions, so there is nothing to re-wrap")
    report = RewrapReport()
    old_master_keys = list(old_master_keys)
    for meta in _system_keys(context, report):
        try:
            changed = _rewrap_one(
                context, kms, meta, old_master_keys, allow_missing=allow_missing_regions, dry_run=dry_run
            )
            (report.rewrapped if changed else report.unchanged).append(meta)
        except AsherahError as exc:
            report.failed[meta] = str(exc)
        progress(1)
    return report


def count_system_keys() -> int:
    """Return how many keys there are to be re-wrapped.

    Raises:
        ImproperlyConfigured: the settings are wrong.
        MetastoreError: the key table can't be read.
    """
    return len(_system_keys(get_context(), RewrapReport()))


def _system_keys(context: Context, report: RewrapReport) -> list[KeyMeta]:
    """Return the system keys whose data we read, of each suffix the newest first, and note those that can't be read."""
    metas = []
    for row in chain.from_iterable(map(context.table.versions, context.factory.system_key_ids)):
        try:
            metas.append(KeyMeta(row.key_id, row.record().created))
        except InvalidRecordError as exc:
            report.unreadable.append((row.key_id, str(exc)))
    return metas


def _rewrap_one(
    context: Context, kms: RegionalKMS, meta: KeyMeta, old_master_keys: list[str], *, allow_missing: bool, dry_run: bool
) -> bool:
    row = context.table.read(meta)
    if row is None:
        raise MetastoreError(f"key {meta} was deleted meanwhile")
    record = row.record()
    wrapped = kms.rewrap(record.key, old_master_keys=old_master_keys, allow_missing=allow_missing)
    if wrapped == record.key:
        return False
    regions = list(kms.regions_of(wrapped))  # Before the record is replaced, for it may refuse.
    if not dry_run:
        if not context.table.replace(row, msgspec.structs.replace(record, key=wrapped)):
            raise MetastoreError(f"the record of key {meta} was changed meanwhile; it is left as it is: run this again")
        audit.record(signals.key_rewrapped, "rewrapped", key_id=meta.key_id, created=meta.created, regions=regions)
    return True
