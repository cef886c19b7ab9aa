"""Key rings: load, check, make and rotate the keys of one level of the hierarchy.

Behaviour follows ``go/appencryption/envelope.go`` of godaddy/asherah. Where this differs: a stale key is compared by
``created`` when it is read again, a store error is never taken for a duplicate, and a key that must follow a
revoked one of the same minute gets a ``created`` of its own.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from django_asherah.envelope.aead import KEY_LENGTH, wipe
from django_asherah.envelope.cache import KeyCache
from django_asherah.envelope.events import EventQueue
from django_asherah.envelope.interfaces import (
    CacheMissed,
    Clock,
    KeyCreated,
    KeyManagementService,
    Metastore,
    Random,
    StaleKeyKept,
)
from django_asherah.envelope.keys import CryptoKey
from django_asherah.envelope.native import make_cipher
from django_asherah.envelope.policy import CryptoPolicy
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta
from django_asherah.exceptions import (
    AsherahError,
    DecryptionError,
    EncryptionError,
    InvalidRecordError,
    KeyNotFoundError,
    KMSError,
    MetastoreError,
)

logger = logging.getLogger("django_asherah")

RETRY_AFTER = 60.0
"""Seconds for which a key that was due for its revoke check is trusted when its record can't be read."""

_CREATE_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every key ring works with."""

    metastore: Metastore
    policy: CryptoPolicy
    clock: Clock
    random: Random
    notify: EventQueue
    cache_size: int


class KeyRing(ABC):
    """The keys of one level. Thread-safe; one loader per key id at a time."""

    _replaced_when: tuple[type[AsherahError], ...] = ()
    """What makes the latest key, if it can't be opened, give way to a new one instead of failing new writes."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._metastore = surroundings.metastore
        self._policy = surroundings.policy
        self._clock = surroundings.clock
        self._random = surroundings.random
        self._notify = surroundings.notify
        self.cache = KeyCache(surroundings.cache_size)

    def current(self, key_id: str) -> CryptoKey:
        """Return the key that new writes use: the latest valid one, made now if there is none.

        Raises:
            KMSError, MetastoreError: none is in hand, and none can be loaded or made.
        """
        key = self.cache.newest.get(key_id)
        if key is not None and self._clock() < key.usable_until:
            key.recently_used = True
            return key
        with self._notify.held(), self.cache.loading(key_id):
            key = self.cache.current(key_id)
            now = self._clock()
            if key is not None and now < key.usable_until:
                return key
            return self._renew(key_id, key, now)

    def exact(self, meta: KeyMeta) -> CryptoKey:
        """Return the key that a record names, expired and revoked ones included.

        Raises:
            KeyNotFoundError: the metastore has no such key.
            KMSError, MetastoreError: it is not in hand and can't be loaded.
            DecryptionError: its own record can't be opened.
        """
        key = self.cache.opened.get(meta)
        if key is not None and self._clock() < key.check_at:
            key.recently_used = True
            return key
        lock = self.cache.loading(meta.key_id)
        # Only whoever checks a key waits for a slow metastore: the others go on reading with what is in hand.
        if not lock.acquire(blocking=key is None or not key.check_at) and key is not None:
            return key
        with self._notify.held():
            try:
                return self._load(meta)
            finally:
                lock.release()

    def load_many(self, metas: Iterable[KeyMeta]) -> None:
        """Bring those of these keys into hand that aren't, with as few calls of the metastore as it allows.

        A key that isn't there or can't be opened is passed over: :meth:`exact` says why.

        Raises:
            MetastoreError: the metastore can't be read.
        """
        now = self._clock()
        missing = [meta for meta in dict.fromkeys(metas) if not self._is_in_hand(meta, now)]
        if not missing:
            return
        for meta in missing:
            self._notify(CacheMissed(meta.key_id))
        for meta, record in self._openable(self._metastore.load_many(missing)).items():
            with suppress(AsherahError), self._notify.held(), self.cache.loading(meta.key_id):
                if not self._is_in_hand(meta, now):
                    self._adopt(meta, record, now)

    def _is_in_hand(self, meta: KeyMeta, now: float) -> bool:
        key = self.cache.get(meta)
        return key is not None and now < key.check_at

    def _openable(self, records: dict[KeyMeta, EnvelopeKeyRecord]) -> dict[KeyMeta, EnvelopeKeyRecord]:
        """Return those of these records that are worth an attempt."""
        return records

    def rotate(self, key_id: str) -> CryptoKey:
        """Make a new key now, whatever the age of the latest, and let new writes use it.

        Raises:
            KMSError, MetastoreError: it can't be made; the latest stays in use.
        """
        with self._notify.held(), self.cache.loading(key_id):
            now = self._clock()
            key = self._create(key_id, self._metastore.load_latest(key_id), now)
            self.cache.make_current(key)
            return key

    def clear(self) -> None:
        """Forget every opened key."""
        self.cache.clear()

    def __len__(self) -> int:
        """Return how many opened keys are in hand."""
        return len(self.cache)

    @abstractmethod
    def _open(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> bytearray:
        """Return the raw key that ``record`` holds."""

    @abstractmethod
    def _seal(self, raw: bytearray, created: int) -> EnvelopeKeyRecord:
        """Return the record that holds ``raw``."""

    def validity(self, key: CryptoKey) -> tuple[float, float]:
        """Return until when ``key`` takes new writes, and from when that must be looked at again."""
        if key.record.revoked:
            return 0.0, key.check_at
        return self._policy.expires_at(key.meta.created), key.check_at

    def _admit(self, key: CryptoKey, now: float) -> bool:
        key.valid_until, check_at = self.validity(key)
        key.usable_until = min(key.valid_until, check_at)
        return now <= key.valid_until

    def _load(self, meta: KeyMeta) -> CryptoKey:
        key = self.cache.get(meta)
        now = self._clock()
        if key is not None and now < key.check_at:
            return key
        self._notify(CacheMissed(meta.key_id))
        try:
            record = self._metastore.load(meta)
        except MetastoreError as exc:
            if key is None or not key.check_at:
                raise
            return self._keep(key, now, exc)
        if record is None:
            if key is not None:
                self.cache.discard(key)
            raise KeyNotFoundError(
                f"the metastore has no key {meta}: was its row deleted, or is this another key table?"
            )
        if record.created != meta.created:
            raise InvalidRecordError(f"the row of key {meta} holds the record of a key created {record.created}")
        return self._adopt(meta, record, now)

    def _renew(self, key_id: str, held: CryptoKey | None, now: float) -> CryptoKey:
        """Find or make the key for new writes; the caller holds the id's lock."""
        self._notify(CacheMissed(key_id))
        try:
            record = self._metastore.load_latest(key_id)
            key = self._valid_latest(key_id, record, now) or self._create(key_id, record, now)
        except (MetastoreError, KMSError) as exc:
            if held is None or not self._may_go_on(held, now, exc):
                raise
            return self._keep(held, now, exc)
        self.cache.make_current(key)
        return key

    def _valid_latest(self, key_id: str, record: EnvelopeKeyRecord | None, now: float) -> CryptoKey | None:
        if record is None:
            return None
        meta = KeyMeta(key_id, record.created)
        if self._is_retired(record, now):
            # Not opened: its KMS key may be gone, and that is no reason to hold up new writes.
            self._note(meta, record)
            return None
        try:
            key = self._adopt(meta, record, now)
            return key if self._admit(key, now) else None
        except self._replaced_when as exc:
            logger.warning("key %s can't be opened, so new writes get a new key: %s", meta, exc)
            return None

    def _is_retired(self, record: EnvelopeKeyRecord, now: float) -> bool:
        return bool(record.revoked) or now > self._policy.expires_at(record.created)

    def _note(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> None:
        key = self.cache.get(meta)
        if key is not None and key.record.key == record.key:
            key.record = record

    def _may_go_on(self, held: CryptoKey, now: float, cause: AsherahError) -> bool:
        """Tell whether new writes may go on under ``held`` although it can't be renewed."""
        if not held.check_at or held.record.revoked or now > held.valid_until:
            return False
        if isinstance(cause, MetastoreError):
            return True
        # The KMS is down but the metastore answers: a revocation is not to be missed.
        record = self._metastore.load(held.meta)
        return record is not None and not record.revoked

    def _keep(self, held: CryptoKey, now: float, cause: Exception) -> CryptoKey:
        logger.warning("key %s is due for its revoke check, which failed; it stays in use: %s", held.meta, cause)
        held.check_at = now + min(RETRY_AFTER, self._policy.revoke_check_interval)
        held.usable_until = min(held.valid_until, held.check_at)
        self._notify(StaleKeyKept(held.meta, cause))
        return held

    def _adopt(self, meta: KeyMeta, record: EnvelopeKeyRecord, now: float) -> CryptoKey:
        """Open ``record``, unless the very same key is in hand; note when it was read."""
        key = self.cache.get(meta)
        if key is not None and key.record.key == record.key:
            key.record = record
        else:
            raw = self._open(meta, record)
            key = self._hold(meta, record, raw)
        self._settle(key, now)
        return key

    def _hold(self, meta: KeyMeta, record: EnvelopeKeyRecord, raw: bytearray) -> CryptoKey:
        try:
            key = CryptoKey(meta, record, make_cipher(raw, self._random))
        finally:
            wipe(raw)
        self.cache.put(key)
        return key

    def _settle(self, key: CryptoKey, now: float) -> None:
        # Until the row is certain to last, the key is checked against it before every use: a rolled back
        # transaction takes the row away, and what is encrypted under such a key could never be read again.
        lasting = self._metastore.is_committed(key.meta, key.record)
        key.usable_until = 0.0
        key.check_at = now + self._policy.revoke_check_interval if lasting else 0.0

    def _create(self, key_id: str, newest: EnvelopeKeyRecord | None, now: float) -> CryptoKey:
        """Make and store a key that is newer than ``newest``; whoever's record stands is the key."""
        created = self._policy.created_at(now)
        for _ in range(_CREATE_ATTEMPTS):
            if newest is not None:
                created = max(created, newest.created + 1)
            key = self._store_new(KeyMeta(key_id, created), now)
            if key is not None:
                return key
            newest = self._metastore.load_latest(key_id)
            if newest is None:
                raise MetastoreError(f"the metastore refused key {key_id} created {created}, yet holds none of this id")
            key = self._valid_latest(key_id, newest, now)
            if key is not None:
                return key
        raise EncryptionError(
            f"no valid key {key_id} came to stand in {_CREATE_ATTEMPTS} attempts: others keep retiring it"
        )

    def _store_new(self, meta: KeyMeta, now: float) -> CryptoKey | None:
        raw = bytearray(self._random(KEY_LENGTH))
        try:
            record = self._seal(raw, meta.created)
            if not self._metastore.store(meta.key_id, record):
                return None
            key = self._hold(meta, record, raw)
        finally:
            wipe(raw)
        self._settle(key, now)
        self._admit(key, now)
        self._notify(KeyCreated(meta))
        return key


class SystemKeys(KeyRing):
    """System keys, wrapped by the KMS."""

    def __init__(self, surroundings: Surroundings, kms: KeyManagementService) -> None:
        super().__init__(surroundings)
        self._kms = kms

    def _open(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> bytearray:
        try:
            return self._kms.decrypt_key(record.key)
        except AsherahError as exc:
            exc.at(f"system key {meta}")
            raise

    def _seal(self, raw: bytearray, created: int) -> EnvelopeKeyRecord:
        return EnvelopeKeyRecord(created=created, key=self._kms.encrypt_key(raw))


class IntermediateKeys(KeyRing):
    """Intermediate keys, one a partition, sealed by system keys."""

    _replaced_when = (KeyNotFoundError, DecryptionError)

    def __init__(self, surroundings: Surroundings, system_keys: SystemKeys, system_key_id: str) -> None:
        super().__init__(surroundings)
        self._system_keys = system_keys
        self._system_key_id = system_key_id

    def _open(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> bytearray:
        try:
            # The system key that the record names, which need not be the one in hand.
            return self._parent(record).cipher.open_key(record.key)
        except AsherahError as exc:
            exc.at(f"intermediate key {meta}")
            raise

    def _seal(self, raw: bytearray, created: int) -> EnvelopeKeyRecord:
        system_key = self._system_keys.current(self._system_key_id)
        return EnvelopeKeyRecord(created=created, key=system_key.cipher.seal(raw), parent_key_meta=system_key.meta)

    def _openable(self, records: dict[KeyMeta, EnvelopeKeyRecord]) -> dict[KeyMeta, EnvelopeKeyRecord]:
        parents = {meta: parent for meta, record in records.items() if (parent := record.parent_key_meta)}
        self._system_keys.load_many(parents.values())
        # A KMS that is down was asked once a system key, and is not asked again for each key below it.
        return {meta: records[meta] for meta, parent in parents.items() if self._system_keys.cache.get(parent)}

    def validity(self, key: CryptoKey) -> tuple[float, float]:
        """Return the same as for any key, and never more than the system key above it has."""
        own = super().validity(key)
        above = self._system_keys.validity(self._parent(key.record))
        return min(own[0], above[0]), min(own[1], above[1])

    def _parent(self, record: EnvelopeKeyRecord) -> CryptoKey:
        if record.parent_key_meta is None:
            raise InvalidRecordError("its record names no system key")
        return self._system_keys.exact(record.parent_key_meta)
