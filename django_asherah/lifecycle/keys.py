"""The key hierarchy as it stands in the key table."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum

from django_asherah.envelope.partition import KeyKind, intermediate_key_id, kind_of
from django_asherah.envelope.policy import MAX_SKEW
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, printable
from django_asherah.exceptions import InvalidRecordError
from django_asherah.lifecycle.context import Context, get_context
from django_asherah.lifecycle.first import FirstOf
from django_asherah.lifecycle.regions import RegionCopy, compare_regions
from django_asherah.metastores.key_table import KeyRow


class KeyState(StrEnum):
    """What a key is good for: of these, the last that is true of it.

    Every key opens what was written under it, whatever its state. Superseded: there is a newer key of its id, or it was
    made by a clock that was ahead. Expired:
    it was created before :meth:`Context.first_unexpired`. Revoked: its record says so.
    """

    CURRENT = "current"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """One key of the key table.

    Attributes:
        meta: its id and creation time.
        kind: see :class:`~django_asherah.envelope.partition.KeyKind`.
        partition: whose key it is; None for a system key, and for another service's or product's key.
        expires: Unix seconds.
        state: see :class:`KeyState`.
        parent: the system key that seals an intermediate key.
        regions: maps each region that wraps a system key to its master key.
        copies: a system key's regions compared with the configured ones.
        ours: whether it is of the configured service and product, with a suffix that is read.
        takes_writes: whether new writes use keys of its id: it is ours, and of the configured suffix.
        age: seconds since it was created.
    """

    meta: KeyMeta
    kind: KeyKind
    partition: str | None
    expires: float
    state: KeyState
    parent: KeyMeta | None = None
    regions: dict[str, str] = field(default_factory=dict)
    copies: tuple[RegionCopy, ...] = ()
    ours: bool = True
    takes_writes: bool = True
    age: float = 0.0

    @property
    def is_from_future(self) -> bool:
        """Whether it was created later than a healthy clock can say: it takes no new writes until that time comes."""
        return self.age < -MAX_SKEW

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with it, compared with the settings and with the clock."""
        found = [copy.problem for copy in self.copies if copy.problem]
        if self.kind is KeyKind.INTERMEDIATE and self.parent is None:
            found.append("its record names no system key, so that it opens nothing: remove the row")
        if self.is_from_future:
            found.append(
                f"created {-self.age:.0f} seconds ahead of this host's clock: it takes no new writes. If the clock of "
                "the host that made it was wrong, run asherah_rotate, then asherah_reencrypt"
            )
        return tuple(found)


@dataclass(slots=True)
class Listing:
    """The keys, read as they are iterated over, and what else was met on the way.

    Attributes:
        other_rows: rows that are no keys, such as the Rust SDK's own.
        unreadable: key ids of rows whose record can't be read, or is not what the row is stored under, with the reason:
            the first thousand.
    """

    context: Context
    other_rows: int = 0
    unreadable: FirstOf[tuple[str, str]] = field(default_factory=FirstOf)

    def total(self) -> int:
        """Return the number of rows in the key table."""
        return self.context.table.count()

    def __iter__(self) -> Iterator[KeyInfo]:
        key_id, newer = "", set[bool]()
        for row in self.context.table.scan():
            if kind_of(row.key_id) is None:
                self.other_rows += 1
                continue
            if row.key_id != key_id:
                key_id, newer = row.key_id, set()
            try:
                key = key_info(self.context, row, newer=newer)
            except InvalidRecordError as exc:
                self.unreadable.add((row.key_id, str(exc)))
                continue
            if not key.is_from_future:
                newer.add(key.ours)
            yield key


def key_info(context: Context, row: KeyRow, *, newer: Collection[bool] = ()) -> KeyInfo:
    """Return what one row of the key table is.

    Args:
        context: the engine.
        row: the row.
        newer: of each key of this id that was created later, whether it is ours: another service's can have the same
            id, and takes no place of ours.

    Raises:
        InvalidRecordError: the record can't be read, or is not what the row is stored under, or the row is no key.
    """
    factory, record, kind = context.factory, row.record(), kind_of(row.key_id)
    if kind is None:
        raise InvalidRecordError(f"{printable(row.key_id)} is not the id of a key")
    partition = context.partition_of(row.key_id, record.parent_key_meta)
    ours = partition is not None or row.key_id in factory.system_key_ids
    is_current = ours not in newer and not context.is_from_future(record.created)
    own_ids = {factory.system_key_id} | (
        {intermediate_key_id(partition, factory.system_key_id)} if partition else set()
    )
    regions = context.regions_of(record) if kind is KeyKind.SYSTEM else {}
    return KeyInfo(
        meta=KeyMeta(row.key_id, record.created),
        kind=kind,
        partition=partition,
        expires=factory.policy.expires_at(record.created),
        state=_state(record, context.first_unexpired(), is_current=is_current),
        parent=record.parent_key_meta,
        regions=regions,
        copies=compare_regions(regions, context.regions if ours else None) if kind is KeyKind.SYSTEM else (),
        ours=ours,
        takes_writes=row.key_id in own_ids,
        age=factory.clock() - record.created,
    )


def keys_of_id(context: Context, key_id: str) -> list[KeyInfo]:
    """Return the readable keys of one id, the newest first."""
    keys: list[KeyInfo] = []
    for row in context.table.versions(key_id):
        with suppress(InvalidRecordError):
            newer = {key.ours for key in keys if not key.is_from_future}
            keys.append(key_info(context, row, newer=newer))
    return keys


def list_keys() -> Listing:
    """Return every key, in constant memory: the keys of one id one after the other, the newest first.

    Raises:
        ImproperlyConfigured: the settings are wrong.
        MetastoreError: the metastore can't list its keys, or fails.
    """
    return Listing(get_context())


def _state(record: EnvelopeKeyRecord, first_unexpired: int, *, is_current: bool) -> KeyState:
    if record.revoked:
        return KeyState.REVOKED
    if record.created < first_unexpired:
        return KeyState.EXPIRED
    return KeyState.CURRENT if is_current else KeyState.SUPERSEDED
