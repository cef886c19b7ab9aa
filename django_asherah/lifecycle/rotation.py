"""Rotate: make newer keys. Nothing is rewritten, and what the older ones sealed stays readable."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from django_asherah import audit, signals
from django_asherah.envelope.keyring import KeyRing
from django_asherah.envelope.partition import KeyKind, Partition
from django_asherah.envelope.records import KeyMeta
from django_asherah.exceptions import KMSError, MetastoreError
from django_asherah.kms.regional import ask_regions, is_regional
from django_asherah.lifecycle.context import Context, get_context
from django_asherah.lifecycle.keys import KeyState, Listing
from django_asherah.lifecycle.progress import Progress, tell_nobody

_ROUNDS = 10


@dataclass(slots=True)
class RotationReport:
    """What was made, or with ``dry_run`` the ids of what would be.

    Attributes:
        system_key: the new system key, if there is one.
        intermediate_keys: the new intermediate keys.
        failed_regions: regions that the new system key was not wrapped for, with the reason.
    """

    system_key: KeyMeta | str | None = None
    intermediate_keys: list[KeyMeta | str] = field(default_factory=list)
    failed_regions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Newest:
    """The newest key of an id, as the key table has it."""

    meta: KeyMeta
    parent: KeyMeta | None
    retired: bool


@dataclass(slots=True)
class _Hierarchy:
    """The newest key of every id of ours, and the system keys that take no new writes."""

    system: _Newest | None = None
    intermediate: dict[str, _Newest] = field(default_factory=dict)
    retired: set[KeyMeta] = field(default_factory=set)

    def is_due(self, key_id: str) -> bool:
        """Tell whether new writes of this id need a new key."""
        key = self.intermediate.get(key_id)
        return key is None or key.retired or key.parent in self.retired

    def is_behind(self, key_id: str) -> bool:
        """Tell whether the id's newest key is not one under the newest system key."""
        key = self.intermediate.get(key_id)
        return key is None or key.retired or self.system is None or key.parent != self.system.meta


def rotate(
    *,
    partitions: Iterable[str] | None = None,
    expired: bool = False,
    resume: bool = False,
    allow_missing_regions: bool = False,
    dry_run: bool = False,
    progress: Progress = tell_nobody,
) -> RotationReport:
    """Make a new system key, and under it a new intermediate key for every partition in use.

    Safe to interrupt: a partition not reached yet goes on with the key it has. Other processes follow within the
    revoke check interval. Rotations at the same time end with every partition's newest key under one system key.

    Args:
        partitions: only these; those not in use yet get their first key. The system key is made anew as well.
        expired: only what is expired or revoked, or stands under a system key that is.
        resume: make no new system key; only partitions whose key is not under the newest one.
        allow_missing_regions: go on although a configured region can't wrap a key.
        dry_run: report what would be made, and make nothing.
        progress: is told how many more intermediate keys were made.

    Raises:
        KMSError: a configured region can't wrap, or none can.
        MetastoreError: the key table can't be read or written.
    """
    context = get_context()
    report = RotationReport(failed_regions=_failed_regions(context, allowed=allow_missing_regions))
    keys = _read(context)
    ids = list(keys.intermediate) if partitions is None else _ids_of(context, partitions)
    if expired or resume:
        ids = [key_id for key_id in ids if (keys.is_behind(key_id) if resume else keys.is_due(key_id))]
    if not resume and (not expired or keys.system is None or keys.system.retired):
        report.system_key = _renew(context.factory.system_keys, context.factory.system_key_id, dry_run=dry_run)
        report.failed_regions |= _regions_left_out(context, report)
    for key_id in ids:
        report.intermediate_keys.append(_renew(context.factory.intermediate_keys, key_id, dry_run=dry_run))
        progress(1)
    if ids and not dry_run:
        _catch_up(context, ids, report)
    return report


def _renew(ring: KeyRing, key_id: str, *, dry_run: bool) -> KeyMeta | str:
    if dry_run:
        return key_id
    meta = ring.rotate(key_id).meta
    audit.record(signals.key_rotated, "rotated", key_id=meta.key_id, created=meta.created)
    return meta


def _catch_up(context: Context, ids: list[str], report: RotationReport) -> None:
    """Make again what a rotation at the same time has left under a system key that is no longer the newest.

    Whichever of them reads the key table last, after all that any of them has written, finds what is left to do.
    """
    for _ in range(_ROUNDS):
        keys = _read(context)
        behind = [key_id for key_id in ids if keys.is_behind(key_id)]
        if not behind:
            return
        context.factory.clear()
        for key_id in behind:
            report.intermediate_keys.append(_renew(context.factory.intermediate_keys, key_id, dry_run=False))
    raise MetastoreError("the rotation did not come to rest, because others keep rotating: run asherah_rotate --resume")


def _failed_regions(context: Context, *, allowed: bool) -> dict[str, str]:
    kms = context.factory.kms
    if not is_regional(kms):
        return {}
    failures = ask_regions(kms, kms.check_wrap)
    if failures and not allowed:
        raise KMSError(
            f"no key was rotated, because it would lack a region: {'; '.join(map(str, failures.values()))}. "
            "Repair it, or go on without it with --allow-missing-regions and run asherah_rewrap later.",
            failures,
        )
    return {region: str(cause) for region, cause in failures.items()}


def _regions_left_out(context: Context, report: RotationReport) -> dict[str, str]:
    """Return the regions that answered when they were asked, and then failed to wrap the new system key."""
    kms, meta = context.factory.kms, report.system_key
    if not is_regional(kms) or not isinstance(meta, KeyMeta):
        return {}
    record = context.factory.metastore.load(meta)
    wrapped = context.regions_of(record) if record is not None else {}
    return {
        region: f"{region} failed while key {meta} was made: run asherah_rewrap when it works again"
        for region in kms.master_keys
        if region not in wrapped and region not in report.failed_regions
    }


def _read(context: Context) -> _Hierarchy:
    keys = _Hierarchy()
    for key in Listing(context):
        newest = _Newest(key.meta, key.parent, key.state in (KeyState.EXPIRED, KeyState.REVOKED))
        if not key.ours:
            continue
        if key.kind is KeyKind.INTERMEDIATE:
            keys.intermediate.setdefault(key.meta.key_id, newest)
        else:
            keys.system = keys.system or newest
            keys.retired |= {key.meta} if newest.retired else set()
    return keys


def _ids_of(context: Context, partitions: Iterable[str]) -> list[str]:
    factory = context.factory
    return [
        Partition(name, factory.service, factory.product, factory.key_suffix).intermediate_key_id
        for name in dict.fromkeys(partitions)
    ]
