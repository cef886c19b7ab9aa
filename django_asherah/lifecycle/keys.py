"""The key hierarchy as it stands in the key table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum

from django_asherah.envelope.policy import CryptoPolicy
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, decode_key
from django_asherah.exceptions import InvalidRecordError
from django_asherah.kms.regional import RegionalKMS
from django_asherah.lifecycle.context import Context, get_context
from django_asherah.lifecycle.regions import RegionCopy, compare_regions


class KeyState(StrEnum):
    """What a key is good for. Every key opens what was written under it, whatever its state."""

    CURRENT = "current"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """One key of the key table.

    Attributes:
        meta: its id and creation time.
        kind: ``system`` or ``intermediate``.
        partition: whose key it is; None for a system key, and for another service's or product's key.
        expires: Unix seconds.
        state: see :class:`KeyState`.
        parent: the system key that seals an intermediate key.
        regions: maps each region that wraps a system key to its master key's ARN.
        copies: a system key's regions compared with the configured ones.
        ours: whether it is of the configured service, product and suffix.
        age: seconds since it was created.
    """

    meta: KeyMeta
    kind: str
    partition: str | None
    expires: float
    state: KeyState
    parent: KeyMeta | None = None
    regions: dict[str, str] = field(default_factory=dict)
    copies: tuple[RegionCopy, ...] = ()
    ours: bool = True
    age: float = 0.0

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with it, compared with the settings."""
        return tuple(copy.problem for copy in self.copies if copy.problem)


@dataclass(slots=True)
class Listing:
    """The keys, read as they are iterated over, and what else was met on the way.

    Attributes:
        other_rows: rows that are no keys, such as the Rust SDK's own.
        unreadable: key ids of rows whose record can't be read, with the reason.
    """

    context: Context
    other_rows: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def total(self) -> int:
        """Return the number of rows in the key table."""
        return self.context.table.count()

    def __iter__(self) -> Iterator[KeyInfo]:
        newest = ""
        for key_id, text in self.context.table.scan():
            if not key_id.startswith(("_SK_", "_IK_")):
                self.other_rows += 1
                continue
            is_newest, newest = key_id != newest, key_id
            try:
                yield describe(self.context, key_id, text, is_newest=is_newest)
            except InvalidRecordError as exc:
                self.unreadable.append((key_id, str(exc)))


def describe(context: Context, key_id: str, text: str, *, is_newest: bool) -> KeyInfo:
    """Return what one row of the key table is.

    Args:
        context: the engine.
        key_id: its id.
        text: its record.
        is_newest: whether no other row of this id was created later.

    Raises:
        InvalidRecordError: the record can't be read.
    """
    factory, record = context.factory, decode_key(text)
    is_system = key_id.startswith("_SK_")
    partition = context.partition_of(key_id, record.parent_key_meta)
    ours = key_id == factory.system_key_id if is_system else partition is not None
    regions = _regions_of(context, record) if is_system else {}
    return KeyInfo(
        meta=KeyMeta(key_id, record.created),
        kind="system" if is_system else "intermediate",
        partition=partition,
        expires=factory.policy.expires_at(record.created),
        state=_state(record, factory.policy, factory.clock, is_newest=is_newest),
        parent=record.parent_key_meta,
        regions=regions,
        copies=compare_regions(regions, context.regions if ours else None) if is_system else (),
        ours=ours,
        age=factory.clock() - record.created,
    )


def keys_of_id(context: Context, key_id: str) -> list[KeyInfo]:
    """Return the readable keys of one id, the newest first."""
    keys = []
    for place, text in enumerate(context.table.versions(key_id)):
        with suppress(InvalidRecordError):
            keys.append(describe(context, key_id, text, is_newest=not place))
    return keys


def list_keys() -> Listing:
    """Return every key, by id and each id's newest first, in constant memory.

    Raises:
        ImproperlyConfigured, MetastoreError: as everywhere.
    """
    return Listing(get_context())


def _state(record: EnvelopeKeyRecord, policy: CryptoPolicy, clock: Callable[[], float], *, is_newest: bool) -> KeyState:
    if record.revoked:
        return KeyState.REVOKED
    if clock() > policy.expires_at(record.created):
        return KeyState.EXPIRED
    return KeyState.CURRENT if is_newest else KeyState.SUPERSEDED


def _regions_of(context: Context, record: EnvelopeKeyRecord) -> dict[str, str]:
    """Return the regions that wrap a system key, with their master keys; none if another KMS wrapped it."""
    kms = context.factory.kms
    if not isinstance(kms, RegionalKMS):
        return {}
    try:
        return dict(kms.regions_of(record.key))
    except InvalidRecordError:
        return {}
