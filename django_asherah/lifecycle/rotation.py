"""Rotate: make newer keys. Nothing is rewritten, and what the older ones sealed stays readable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from django_asherah import audit, engine, signals
from django_asherah.envelope.batches import KEYS_AT_ONCE
from django_asherah.envelope.partition import KeyKind, Partition
from django_asherah.envelope.parts import parts_of
from django_asherah.envelope.records import MAX_CREATED, KeyMeta
from django_asherah.exceptions import KMSError, MetastoreError
from django_asherah.kms.regional import ask_regions, is_regional
from django_asherah.lifecycle.context import Context, get_context
from django_asherah.lifecycle.first import FirstOf
from django_asherah.lifecycle.keys import KeyState, Listing, keys_of_id
from django_asherah.lifecycle.progress import Progress, tell_nobody

_ROUNDS = 10
_RETIRED = (KeyState.EXPIRED, KeyState.REVOKED)


@dataclass(slots=True)
class RotationReport:
    """What was made, or with ``dry_run`` the ids of what would be.

    Attributes:
        system_key: the new system key, if there is one.
        intermediate_keys: the new intermediate keys: the first thousand, and how many there are.
        failed_regions: regions that the new system key was not wrapped for, with the reason.
    """

    system_key: KeyMeta | str | None = None
    intermediate_keys: FirstOf[KeyMeta | str] = field(default_factory=FirstOf)
    failed_regions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Newest:
    """The newest key of an id, as the key table has it; ``created`` is None if it has none."""

    key_id: str
    created: int | None = None
    parent: KeyMeta | None = None
    retired: bool = True


@dataclass(frozen=True, slots=True)
class _SystemKeys:
    """The newest of our system keys, and those that take no new writes."""

    newest: KeyMeta | None
    retired: frozenset[KeyMeta]

    def is_due(self, key: _Newest) -> bool:
        """Tell whether new writes of this id need a new key."""
        return key.retired or key.parent in self.retired

    def is_behind(self, key: _Newest) -> bool:
        """Tell whether the id's newest key is not one under the newest system key."""
        return key.retired or self.newest is None or key.parent != self.newest


@engine.key_rows_changing()
def rotate(
    *,
    partitions: Iterable[str] | None = None,
    expired: bool = False,
    resume: bool = False,
    allow_missing_regions: bool = False,
    dry_run: bool = False,
    batch: int = KEYS_AT_ONCE,
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
        batch: how many intermediate keys are made at a time; the memory needed depends on this alone.
        progress: is told how many more intermediate keys were made.

    Raises:
        KMSError: a configured region can't wrap, or none can.
        MetastoreError: the key table can't be read or written.
    """
    context = get_context()
    report = RotationReport(failed_regions=_failed_regions(context, allowed=allow_missing_regions))
    system = _read_system_keys(context)
    if not resume and (not expired or system.newest is None or system.newest in system.retired):
        report.system_key = _renew_system_key(context, dry_run=dry_run)
        report.failed_regions |= _regions_left_out(context, report)
    rotation = _Rotation(context, report, None if partitions is None else _ids_of(context, partitions), batch, progress)
    is_wanted = system.is_behind if resume else system.is_due if expired else _always
    if dry_run:
        report.intermediate_keys.add_all(rotation.find(is_wanted))
    elif rotation.renew(is_wanted):
        rotation.catch_up(only_ours=expired)
    return report


def _renew_system_key(context: Context, *, dry_run: bool) -> KeyMeta | str:
    factory = context.factory
    return factory.system_key_id if dry_run else _recorded(factory.system_keys.rotate(factory.system_key_id).meta)


@dataclass(slots=True)
class _Rotation:
    """Renews intermediate keys, one batch at a time.

    Attributes:
        key_ids: the ids that are renewed; None for all in use.
        since: the creation time of the oldest key that was made.
    """

    context: Context
    report: RotationReport
    key_ids: list[str] | None
    batch: int
    progress: Progress
    since: int = MAX_CREATED

    def find(self, is_wanted: Callable[[_Newest], bool]) -> Iterator[str]:
        """Yield the ids whose newest key is wanted. What is made meanwhile is not met again."""
        keys = _newest_in_use(self.context) if self.key_ids is None else _newest_of(self.context, self.key_ids)
        return (key.key_id for key in keys if is_wanted(key))

    def renew(self, is_wanted: Callable[[_Newest], bool]) -> bool:
        """Make new keys of the ids whose newest key is wanted; tell whether there were any."""
        before = self.report.intermediate_keys.total
        for key_ids in parts_of(self.find(is_wanted), self.batch):
            for key in self.context.factory.intermediate_keys.rotate_many(key_ids).values():
                self.since = min(self.since, key.meta.created)
                self.report.intermediate_keys.add(_recorded(key.meta))
            self.progress(len(key_ids))
        return self.report.intermediate_keys.total > before

    def catch_up(self, *, only_ours: bool) -> None:
        """Make again what a rotation at the same time has left under a system key that is no longer the newest.

        Whichever of them reads the key table last, after all that any of them has written, finds what is left to do.

        Args:
            only_ours: only what is as young as the keys that this rotation has made. What was not due stays.
        """
        oldest = self.since if only_ours else 0
        for _ in range(_ROUNDS):
            self.context.factory.clear()
            if not self.renew(_behind(_read_system_keys(self.context), oldest)):
                return
        raise MetastoreError(
            "the rotation did not come to rest, because others keep rotating: run asherah_rotate --resume"
        )


def _recorded(meta: KeyMeta) -> KeyMeta:
    audit.record(signals.key_rotated, "rotated", key_id=meta.key_id, created=meta.created)
    return meta


def _always(key: _Newest) -> bool:
    return True


def _behind(system: _SystemKeys, oldest: int) -> Callable[[_Newest], bool]:
    return lambda key: system.is_behind(key) and (key.created is None or key.created >= oldest)


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


def _read_system_keys(context: Context) -> _SystemKeys:
    keys = [key for key in keys_of_id(context, context.factory.system_key_id) if not key.is_from_future]
    retired = frozenset(key.meta for key in keys if key.state in _RETIRED)
    return _SystemKeys(keys[0].meta if keys else None, retired)


def _newest_in_use(context: Context) -> Iterator[_Newest]:
    """Yield the newest key of every id that new writes use."""
    last_id = ""
    for key in Listing(context):
        if not key.takes_writes or key.kind is not KeyKind.INTERMEDIATE or key.is_from_future:
            continue
        if key.meta.key_id != last_id:
            last_id = key.meta.key_id
            yield _Newest(last_id, key.meta.created, key.parent, key.state in _RETIRED)


def _newest_of(context: Context, key_ids: list[str]) -> Iterator[_Newest]:
    """Yield the newest key of each of these ids."""
    for part in parts_of(key_ids, KEYS_AT_ONCE):
        found = context.factory.intermediate_keys.newest_records(part)
        for key_id in part:
            record = found.get(key_id)
            if record is None:
                yield _Newest(key_id)
            else:
                retired = bool(record.revoked) or record.created < context.first_unexpired()
                yield _Newest(key_id, record.created, record.parent_key_meta, retired)


def _ids_of(context: Context, partitions: Iterable[str]) -> list[str]:
    factory = context.factory
    return [
        Partition(name, factory.service, factory.product, factory.key_suffix).intermediate_key_id
        for name in dict.fromkeys(partitions)
    ]
