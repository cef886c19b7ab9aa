"""The engine's seams: what it needs from a KMS, a metastore, a clock and a listener."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta

Clock: TypeAlias = Callable[[], float]
"""Returns the time now, in seconds since the Unix epoch (``time.time``)."""

Random: TypeAlias = Callable[[int], bytes]
"""Returns that many cryptographically strong random bytes (``os.urandom``)."""


class KeyManagementService(Protocol):
    """Wraps system keys under a master key that never leaves the service. Must be thread-safe."""

    def encrypt_key(self, key: bytes | bytearray) -> bytes:
        """Wrap a 32-byte system key. The result is what ``Key`` of its envelope key record holds.

        Raises:
            KMSError: no region could wrap it.
        """

    def decrypt_key(self, wrapped: bytes) -> bytearray:
        """Unwrap what :meth:`encrypt_key` returned into 32 bytes that the caller will wipe.

        Raises:
            KMSError: no region could unwrap it.
        """


class Metastore(Protocol):
    """Stores envelope key records, insert only. Must be thread-safe.

    Every method raises ``MetastoreError`` when the storage fails, and ``InvalidRecordError`` when what
    is stored is not a key record.
    """

    def load(self, meta: KeyMeta) -> EnvelopeKeyRecord | None:
        """Return the record with exactly this key id and creation time, or None."""

    def load_many(self, metas: Sequence[KeyMeta]) -> dict[KeyMeta, EnvelopeKeyRecord]:
        """Return the records of those of these keys that there are, with as few calls as the storage allows.

        A record that is no key record is left out: whoever needs it learns why from :meth:`load`.
        """

    def load_latest(self, key_id: str) -> EnvelopeKeyRecord | None:
        """Return the record with the greatest creation time of this key id, or None.

        Raises:
            InvalidRecordError: the newest row is no sound key. Those before it are found by :class:`ListsVersions`.
        """

    def store(self, key_id: str, record: EnvelopeKeyRecord) -> bool:
        """Insert ``record`` if its (key id, creation time) is free; False if another record stands there."""

    def is_committed(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> bool:
        """Tell whether ``record``, which this caller has just read or stored under ``meta``, is certain to last.

        True where it is committed. False where it may be the caller's own transaction that wrote it, which may
        yet roll back, or where that can't be told.
        """


class StoredKey(Protocol):
    """One row of the key table, sound or not."""

    def record(self) -> EnvelopeKeyRecord:
        """Return its record.

        Raises:
            InvalidRecordError: it can't be read, or its row does not agree with it.
        """


@runtime_checkable
class ListsVersions(Protocol):
    """A metastore that lists the keys of one id, so that one bad row does not hide the sound ones behind it."""

    def versions(self, key_id: str) -> Iterable[StoredKey]:
        """Return the rows of one key id, the newest first.

        Raises:
            MetastoreError: the storage fails.
        """


@runtime_checkable
class LendsConnections(Protocol):
    """A metastore whose callers may hold what another caller needs, such as one of a pooler's few connections."""

    def may_wait(self) -> bool:
        """Tell whether this caller may wait for another thread that reads or stores keys.

        Not if that thread may be waiting for something that this caller holds: neither would ever go on.
        """


@runtime_checkable
class StoresMany(Protocol):
    """A metastore that deals with many keys at once; one without these methods is asked for one after the other.

    Both raise what the methods of :class:`Metastore` raise.
    """

    def load_latest_many(self, key_ids: Sequence[str]) -> dict[str, EnvelopeKeyRecord]:
        """Return, by id, the record with the greatest creation time of each of these key ids that has any."""

    def store_many(self, records: Mapping[KeyMeta, EnvelopeKeyRecord]) -> set[KeyMeta]:
        """Insert those of these records whose (key id, creation time) is free, and return which those were.

        What is returned is stored for certain, as :meth:`Metastore.store` has it. If the storage fails, some may be.
        """


@dataclass(frozen=True, slots=True)
class KeyCreated:
    """A new system key or intermediate key stands in the metastore."""

    meta: KeyMeta


@dataclass(frozen=True, slots=True)
class StaleKeyKept:
    """A key is due for its revoke check, but its record can't be read now; the cached key stays in use.

    If there is a record and the cached key is not what it holds, the cached key goes on opening what it sealed, and
    takes no new writes.
    """

    meta: KeyMeta
    cause: Exception


@dataclass(frozen=True, slots=True)
class RenewalFailed:
    """A key is about to expire, or has expired, and no newer one can be made now; new writes go on under it.

    Attributes:
        meta: the key.
        until: the last moment at which it takes new writes, in Unix seconds.
        cause: why there is no newer one.
    """

    meta: KeyMeta
    until: float
    cause: Exception


@dataclass(frozen=True, slots=True)
class KeyPassedOver:
    """A newest row of a key id is no key for new writes, so an older or a new key serves them.

    Attributes:
        key_id: the id.
        reason: what is wrong with the row.
    """

    key_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class RegionFailed:
    """A region's KMS failed.

    Attributes:
        region: its name.
        master_key: the name of its master key, for example an ARN.
        operation: what was asked of it, by the name of the AWS KMS action: ``Decrypt``, for example.
        consequence: what follows from it.
        cause: why it failed.
    """

    region: str
    master_key: str
    operation: str
    consequence: str
    cause: Exception


@dataclass(frozen=True, slots=True)
class KMSCalled:
    """One call of a region's KMS, and its duration.

    ``error`` is None if it answered; else AWS's error code, or the exception's class.
    """

    region: str
    operation: str
    seconds: float
    error: str | None


@dataclass(frozen=True, slots=True)
class CacheMissed:
    """The metastore was asked for a key that was not cached, or was due for its revoke check."""

    key_id: str


@dataclass(frozen=True, slots=True)
class RecordRefused:
    """A data row record can't be trusted: it, or a key above it, was damaged or tampered with, or is another's.

    Attributes:
        key_id: the intermediate key id of the partition that it should be of.
        created: when the key that it names was made; None if it names none of that id.
        reason: the error's class and message.
    """

    key_id: str
    created: int | None
    reason: str


Event: TypeAlias = (
    KeyCreated | StaleKeyKept | RenewalFailed | KeyPassedOver | RegionFailed | KMSCalled | CacheMissed | RecordRefused
)
Listener: TypeAlias = Callable[[Event], None]


def ignore_events(event: Event) -> None:
    """Do nothing: the listener of those who don't listen."""
