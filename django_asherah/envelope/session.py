"""The engine's public API, named as Asherah names it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from copy import copy
from typing import Self, TypeVar

from django_asherah.envelope.aead import StreamCipher
from django_asherah.envelope.checks import Threads
from django_asherah.envelope.clocks import Clocks, require_representable
from django_asherah.envelope.compact import decode_compact, is_compact, split_compact
from django_asherah.envelope.events import EventQueue
from django_asherah.envelope.files import FILE_START
from django_asherah.envelope.interfaces import (
    Clock,
    KeyManagementService,
    Listener,
    Metastore,
    Random,
    ignore_events,
)
from django_asherah.envelope.keys import CryptoKey
from django_asherah.envelope.levels import IntermediateKeys, SystemKeys
from django_asherah.envelope.loading import LOADING_TIMEOUT, Collaborators
from django_asherah.envelope.partition import Partition, readable_system_ids
from django_asherah.envelope.policy import CryptoPolicy
from django_asherah.envelope.records import (
    MAX_CREATED,
    MAX_PAYLOAD_LENGTH,
    DataRowKey,
    DataRowRecord,
    KeyMeta,
    decode_row,
    encode_row,
    printable,
    write_json,
)
from django_asherah.exceptions import DecryptionError, EncryptionError, PartitionMismatchError

T = TypeVar("T")

_DEFAULT_POLICY = CryptoPolicy()
_DEFAULT_THREADS = Threads()
_NOT_LOADED: Mapping[KeyMeta, CryptoKey] = {}


class Session:
    """Encrypts and decrypts for one partition. Cheap, thread-safe; its keys live in its factory."""

    __slots__ = ("_clock", "_key_id", "_keys", "_newest", "_opened", "_others", "_timer", "partition")

    def __init__(self, partition: Partition, keys: IntermediateKeys, clocks: Clocks) -> None:
        self.partition = partition
        self._key_id, *others = partition.readable_ids
        self._others = tuple(others)
        self._keys = keys
        # encrypt, encrypt_compact and decrypt begin with a copy of KeyRing.current and exact, for keys that are cached:
        # through the ring, a value of 100 bytes costs 6 to 9 % more. Until when a key may be used, the key alone says.
        self._newest, self._opened = keys.cache.newest, keys.cache.opened
        self._clock, self._timer = clocks.wall, clocks.timer

    def encrypt(self, payload: bytes, key: CryptoKey | None = None) -> str:
        """Return ``payload`` (0 bytes to 64 MiB) as the JSON of a data row record.

        The newest key seals it, or ``key``, which :meth:`SessionFactory.current_keys` has just returned.

        Raises:
            EncryptionError: not bytes, or too long; or the clock says what no record can hold.
            PartitionMismatchError: the key is another partition's.
            KMSError, MetastoreError: no key is cached, and none can be loaded or made.
        """
        if not isinstance(payload, bytes) or len(payload) > MAX_PAYLOAD_LENGTH:
            raise _refuse(payload)
        now = self._clock()
        if not 0 <= now <= MAX_CREATED:
            now = require_representable(now)
        if key is None:
            key = self._newest.get(self._key_id)
            if key is None or not key.takes_writes(self._timer()):
                key = self._keys.current(self._key_id)
        elif key.meta.key_id != self._key_id:
            raise self._mismatch(key.meta.key_id)
        key.recently_used = True
        sealed_key, sealed = key.cipher.seal_row(payload)
        return write_json(DataRowRecord(DataRowKey(int(now), sealed_key, key.meta), sealed)).decode()

    def encrypt_compact(self, payload: bytes, key: CryptoKey | None = None) -> bytes:
        """Return ``payload`` as a record in the compact format, which only django-asherah reads.

        Raises:
            EncryptionError, KMSError, MetastoreError: as :meth:`encrypt`.
        """
        if not isinstance(payload, bytes) or len(payload) > MAX_PAYLOAD_LENGTH:
            raise _refuse(payload)
        if key is None:
            key = self._newest.get(self._key_id)
            if key is None or not key.takes_writes(self._timer()):
                key = self._keys.current(self._key_id)
        elif key.meta.key_id != self._key_id:
            raise self._mismatch(key.meta.key_id)
        key.recently_used = True
        return b"".join((key.compact_prefix, *key.cipher.seal_row(payload)))

    def decrypt(self, record: str | bytes, loaded: Mapping[KeyMeta, CryptoKey] = _NOT_LOADED) -> bytes:
        """Return the payload of a record: a data row record's JSON, or the compact format.

        Args:
            record: it.
            loaded: keys that :meth:`SessionFactory.load_keys` has returned. One of these needs neither a place in the
                cache nor a further look at its own record.

        Raises:
            InvalidRecordError: not a record, or over a bound.
            PartitionMismatchError: another partition's record.
            DecryptionError: wrong key or tampering.
            KeyNotFoundError: the metastore has no such key.
            KMSError, MetastoreError: its key is not cached and can't be loaded.
        """
        try:
            if record.__class__ is not str and is_compact(record):
                meta, sealed_key, sealed = split_compact(record, self._key_id, self._others)
                key_id = meta.key_id
            else:
                row = decode_row(record)
                row_key, sealed = row.key, row.data
                meta, sealed_key, key_id = row_key.parent_key_meta, row_key.key, self._key_id
                if meta.key_id != key_id:
                    key_id = meta.key_id
                    if key_id not in self._others:
                        raise self._mismatch(key_id)
        except DecryptionError as exc:
            self.tell_refused(exc)
            raise
        try:
            key = loaded.get(meta) if loaded else None
            if key is None:
                # Most records name the newest key, and to find that costs less than to hash a name.
                key = self._newest.get(key_id)
                if key is None or key.meta.created != meta.created:
                    key = self._opened.get(meta)
                if key is None or not key.is_trusted(self._timer()):
                    key = self._keys.exact(meta)
            key.recently_used = True
            return key.cipher.open_row(sealed_key, sealed)
        except DecryptionError as exc:
            self.tell_refused(exc, meta.created)
            exc.at(f"record under key {meta}")
            raise

    async def aencrypt(self, payload: bytes) -> str:
        """Return the same as :meth:`encrypt`. If the key has yet to be loaded or made, a thread does it.

        A task that is cancelled meanwhile leaves that thread to finish.

        Raises:
            EncryptionError, KMSError, MetastoreError: as :meth:`encrypt`.
        """
        return await self._seal_later(self.encrypt, payload)

    async def aencrypt_compact(self, payload: bytes) -> bytes:
        """Return the same as :meth:`encrypt_compact`, as :meth:`aencrypt` does.

        Raises:
            EncryptionError, KMSError, MetastoreError: as :meth:`encrypt`.
        """
        return await self._seal_later(self.encrypt_compact, payload)

    async def _seal_later(self, seal: Callable[..., T], payload: bytes) -> T:
        key = self._keys.current_in_hand(self._key_id)
        if key is None or key.is_retired:  # The next one is being made, and here there is time to wait for it.
            sealed: T = await self._keys.threads.run(seal, payload)
            return sealed
        return seal(payload, key)

    async def adecrypt(self, record: str | bytes) -> bytes:
        """Return the same as :meth:`decrypt`. If the key has yet to be loaded, a thread does it.

        Raises:
            InvalidRecordError, PartitionMismatchError, DecryptionError, KeyNotFoundError, KMSError, MetastoreError: as
                :meth:`decrypt`.
        """
        meta = None
        with suppress(DecryptionError):  # What is no record of this session, decrypt refuses and tells of.
            meta = self.read(record).key.parent_key_meta
        key = None if meta is None else self._keys.in_hand(meta)
        if meta is None or key is None:
            opened: bytes = await self._keys.threads.run(self.decrypt, record)
            return opened
        return self.decrypt(record, {meta: key})

    def newest_key(self) -> CryptoKey:
        """Return the key that new writes use now.

        Raises:
            KMSError, MetastoreError: none is cached, and none can be loaded or made.
        """
        return self._keys.current(self._key_id)

    def start_file(self) -> tuple[str, StreamCipher]:
        """Return the record of a new file and the cipher of its chunks; see :mod:`django_asherah.envelope.files`.

        Raises:
            KMSError, MetastoreError: no key is cached, and none can be loaded or made.
        """
        key = self._keys.current(self._key_id)
        sealed_key, sealed, stream = key.cipher.start_stream(FILE_START)
        created = require_representable(self._clock())
        return encode_row(DataRowRecord(DataRowKey(created, sealed_key, key.meta), sealed)), stream

    def open_file(self, record: str | bytes) -> StreamCipher:
        """Return the cipher of the chunks of the file that ``record`` begins.

        Raises:
            DecryptionError: the record opens, but is not that of a file.
            InvalidRecordError, PartitionMismatchError, DecryptionError, KeyNotFoundError, KMSError, MetastoreError: as
                :meth:`decrypt`.
        """
        if Session.decrypt(self, record) != FILE_START:
            error = DecryptionError("the record opens, but is not that of such a file")
            self.tell_refused(error)
            raise error
        key = decode_row(record).key
        return self._keys.exact(key.parent_key_meta).cipher.open_stream(key.key, FILE_START)

    def read(self, record: str | bytes) -> DataRowRecord:
        """Return a record of either format unopened: which key seals it, and what. Needs no key.

        Raises:
            InvalidRecordError: not a record, or over a bound.
            PartitionMismatchError: another partition's record, in the compact format, which does not say whose.
        """
        if is_compact(record):
            return decode_compact(record, self._key_id, self._others)
        return decode_row(record)

    def to_json(self, record: str | bytes) -> str:
        """Return a record of either format as the JSON that every Asherah SDK reads. Needs no key, opens nothing.

        Raises:
            InvalidRecordError, PartitionMismatchError: as :meth:`read`.
        """
        return encode_row(self.read(record))

    def tell_refused(self, cause: DecryptionError, created: int | None = None) -> None:
        """Tell the factory's listener of a record of this partition that can't be trusted; see ``RecordRefused``.

        What this session itself refuses to open, it tells itself.
        """
        self._keys.tell_refused(self._key_id, created, cause)

    def _mismatch(self, key_id: str) -> PartitionMismatchError:
        suffix = self.partition.unread_suffix(key_id)
        advice = f": if {suffix} is the suffix of another region, name it in READ_SUFFIXES" if suffix else ""
        return PartitionMismatchError(
            f"the record names key {printable(key_id)}, but this partition's key is {printable(self._key_id)}{advice}"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Do nothing: the keys belong to the factory."""

    def __repr__(self) -> str:
        return f"<Session {self._key_id}>"


def _refuse(payload: object) -> EncryptionError:
    if isinstance(payload, bytes):
        return EncryptionError(f"a value of {len(payload)} bytes is over the limit of {MAX_PAYLOAD_LENGTH}")
    return EncryptionError(f"only bytes can be encrypted, not {type(payload).__name__}")


class SessionFactory:
    """One service and product over one metastore and one KMS, with the keys it has opened. Thread-safe.

    Args:
        service: part of every key id; letters, digits, ``.``, ``_`` and ``-``.
        product: the same.
        metastore: where key records are stored.
        kms: wraps system keys.
        policy: when keys expire and are checked.
        key_suffix: what ids carry after the product (Asherah's region suffix), if anything.
        read_suffixes: other suffixes whose data is read as well, as that without a suffix always is. Nothing is written
            under their ids.
        cache_size: how many opened keys are cached, system keys and intermediate keys each.
        clock: seconds since the Unix epoch, by which keys expire.
        timer: seconds from any fixed point, never going back, by which keys are checked.
        loading_timeout: seconds for which a thread waits for another that loads or makes the same key.
        random: cryptographically strong random bytes.
        on_event: is told of every ``Event`` once no key lock is held; pass the same ``EventQueue`` to the KMS.
        session_type: a subclass of ``Session`` that watches its calls.
        threads: where keys are loaded and checked for callers in an event loop.

    Attributes:
        system_key_ids: the ids of the system keys whose data is read: ``system_key_id``, under which new keys are made,
            is the first.
        sessions: those that :meth:`get_session` has made, by partition, up to ``cache_size`` of them: to look here
            first saves a call. It stays the same dict.
    """

    def __init__(
        self,
        service: str,
        product: str,
        metastore: Metastore,
        kms: KeyManagementService,
        policy: CryptoPolicy = _DEFAULT_POLICY,
        *,
        key_suffix: str = "",
        read_suffixes: Iterable[str] = (),
        cache_size: int = 1000,
        clock: Clock = time.time,
        timer: Clock = time.monotonic,
        loading_timeout: float = LOADING_TIMEOUT,
        random: Random = os.urandom,
        on_event: Listener = ignore_events,
        session_type: type[Session] = Session,
        threads: Threads = _DEFAULT_THREADS,
    ) -> None:
        self.service = service
        self.product = product
        self.key_suffix = key_suffix
        self.read_suffixes = tuple(read_suffixes)
        self.metastore = metastore
        self.kms = kms
        self.policy = policy
        self.clock = clock
        events = on_event if isinstance(on_event, EventQueue) else EventQueue(on_event)
        self._clocks = Clocks(clock, timer)
        self._collaborators = Collaborators(
            metastore, policy, self._clocks, random, events, cache_size, loading_timeout, threads
        )
        self.system_key_ids = readable_system_ids(service, product, key_suffix, self.read_suffixes)
        self.system_key_id = self.system_key_ids[0]
        self._session_type = session_type
        self._begin()

    def _begin(self) -> None:
        """Begin with no key opened."""
        self.system_keys = SystemKeys(self._collaborators, self.kms)
        self.intermediate_keys = IntermediateKeys(self._collaborators, self.system_keys, self.system_key_ids)
        self.sessions: dict[str, Session] = {}

    def with_own_keys(self) -> Self:
        """Return the same factory with no key opened: what is done with that one never touches a key of this one."""
        own = copy(self)
        own._begin()
        return own

    def get_session(self, partition_id: str) -> Session:
        """Return the session of a partition.

        Raises:
            EncryptionError: the partition is empty, too long, or can't be part of a key id.
        """
        session = self.sessions.get(partition_id)
        if session is None:
            partition = Partition(partition_id, self.service, self.product, self.key_suffix, self.read_suffixes)
            session = self._session_type(partition, self.intermediate_keys, self._clocks)
            if len(self.sessions) < self._collaborators.cache_size:
                self.sessions[partition_id] = session
        return session

    def load_keys(self, metas: Iterable[KeyMeta]) -> dict[KeyMeta, CryptoKey]:
        """Return those of these intermediate keys that open, loaded together, be they more than the cache holds.

        A key that can't be loaded is passed over, and not asked for again here for ten seconds: its records say why.

        Raises:
            MetastoreError: the metastore can't be read, and a key that is not cached was wanted.
        """
        return self.intermediate_keys.load_many(metas)

    def current_keys(self, partition_ids: Iterable[str]) -> dict[str, CryptoKey]:
        """Return the keys that new writes of these partitions use, loaded and made together, however many they are.

        Raises:
            EncryptionError: a partition can't be part of a key id; nothing was made.
            KMSError, MetastoreError: a key is not cached, and can't be loaded or made.
        """
        sessions = {name: self.get_session(name) for name in dict.fromkeys(partition_ids)}
        key_ids = {name: session.partition.intermediate_key_id for name, session in sessions.items()}
        keys = self.intermediate_keys.current_many(key_ids.values())
        return {name: keys[key_id] for name, key_id in key_ids.items()}

    def require_checks(self) -> None:
        """Let every opened key be checked against its row before its next use. None is dropped."""
        self.intermediate_keys.require_checks()
        self.system_keys.require_checks()

    def clear(self) -> None:
        """Forget every opened key; the next use loads it again."""
        self.intermediate_keys.clear()
        self.system_keys.clear()

    def __repr__(self) -> str:
        return f"<SessionFactory {self.system_key_id}>"
