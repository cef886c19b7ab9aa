"""Key rings: load, check, make and rotate the keys of one level of the hierarchy.

Behaviour follows ``go/appencryption/envelope.go`` of godaddy/asherah. Where this differs: a stale key is compared by
``created`` when it is read again, a store error is never taken for a duplicate, and a key that must follow a
revoked one of the same minute gets a ``created`` of its own.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from django_asherah.envelope.aead import KEY_LENGTH, wipe
from django_asherah.envelope.cache import KeyCache
from django_asherah.envelope.events import EventQueue
from django_asherah.envelope.interfaces import CacheMissed, Clock, KeyCreated, Metastore, Random, StaleKeyKept
from django_asherah.envelope.keys import BEFORE_EVERY_USE, CryptoKey
from django_asherah.envelope.native import make_cipher
from django_asherah.envelope.policy import CryptoPolicy
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta
from django_asherah.exceptions import (
    AsherahError,
    EncryptionError,
    InvalidRecordError,
    KeyNotFoundError,
    KMSError,
    MetastoreError,
)

logger = logging.getLogger("django_asherah")

RETRY_AFTER = 60.0
"""Seconds for which a key that was due for its revoke check is trusted when its record can't be read."""

CREATE_ATTEMPTS = 10
"""How often a key is made that another retires at once, before that is an error."""

Sealer: TypeAlias = Callable[[bytearray, int], EnvelopeKeyRecord]


@dataclass(frozen=True, slots=True)
class Collaborators:
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

    def __init__(self, collaborators: Collaborators) -> None:
        self._metastore = collaborators.metastore
        self._policy = collaborators.policy
        self._clock = collaborators.clock
        self._random = collaborators.random
        self._notify = collaborators.notify
        self.cache = KeyCache(collaborators.cache_size)

    def current(self, key_id: str) -> CryptoKey:
        """Return the key that new writes use: the latest valid one, made now if there is none.

        Raises:
            KMSError, MetastoreError: none is cached, and none can be loaded or made.
        """
        key = self.cache.current(key_id)
        if key is not None and key.takes_writes(self._clock()):
            return key
        with self._notify.held(), self.cache.loading(key_id):
            key, now = self.cache.current(key_id), self._clock()
            if key is not None and key.takes_writes(now):
                return key
            return self._renew(key_id, key, now)

    def exact(self, meta: KeyMeta) -> CryptoKey:
        """Return the key that a record names, expired and revoked ones included.

        Raises:
            KeyNotFoundError: the metastore has no such key.
            KMSError, MetastoreError: it is not cached and can't be loaded.
            DecryptionError: its own record can't be opened.
        """
        key = self.cache.get(meta)
        if key is not None and key.is_trusted(self._clock()):
            return key
        lock = self.cache.loading(meta.key_id)
        if key is None or not key.is_committed:
            lock.acquire()
        elif not lock.acquire(blocking=False):
            # Only whoever checks a key waits for a slow metastore: the others read on with the key they have.
            return key
        with self._notify.held():
            try:
                return self._load(meta)
            finally:
                lock.release()

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
        """Return how many opened keys are cached."""
        return len(self.cache)

    @abstractmethod
    def _open(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> bytearray:
        """Return the raw key that ``record`` holds."""

    @abstractmethod
    def _sealer(self) -> Sealer:
        """Return what makes of a raw key and its creation time the record that holds it: all under the same parent."""

    def validity(self, key: CryptoKey) -> tuple[float, float]:
        """Return until when ``key`` takes new writes, and from when that must be looked at again."""
        return self._valid_until(key.record), key.check_at

    def _valid_until(self, record: EnvelopeKeyRecord) -> float:
        return 0.0 if record.revoked else self._policy.expires_at(record.created)

    def _refresh_validity(self, key: CryptoKey, now: float) -> bool:
        """Find anew until when ``key`` takes new writes; tell whether it does now."""
        key.allow_writes(*self.validity(key))
        return key.is_valid(now)

    def _load(self, meta: KeyMeta) -> CryptoKey:
        """Load or check a key; the caller holds its id's lock."""
        key, now = self.cache.get(meta), self._clock()
        if key is not None and key.is_trusted(now):
            return key
        self._notify(CacheMissed(meta.key_id))
        try:
            record = self._metastore.load(meta)
        except MetastoreError as exc:
            if key is None or not key.is_committed:
                raise
            return self._trust_a_little_longer(key, now, exc)
        if record is None:
            if key is not None:
                self.cache.discard(key)
            raise KeyNotFoundError(
                f"the metastore has no key {meta}: was its row deleted, or is this another key table?"
            )
        if record.created != meta.created:
            raise InvalidRecordError(f"the row of key {meta} holds the record of a key created {record.created}")
        return self._open_or_reuse(meta, record, now)

    def _renew(self, key_id: str, held: CryptoKey | None, now: float) -> CryptoKey:
        """Find or make the key for new writes; the caller holds the id's lock."""
        self._notify(CacheMissed(key_id))
        try:
            record = self._metastore.load_latest(key_id)
            key = self._valid_latest(key_id, record, now) or self._create(key_id, record, now)
        except (MetastoreError, KMSError) as exc:
            if held is None or not self._may_go_on(held, now, exc):
                raise
            return self._trust_a_little_longer(held, now, exc)
        self.cache.make_current(key)
        return key

    def _valid_latest(self, key_id: str, record: EnvelopeKeyRecord | None, now: float) -> CryptoKey | None:
        if record is None:
            return None
        meta = KeyMeta(key_id, record.created)
        if now > self._valid_until(record):
            # Not opened: its KMS key may be gone, and that is no reason to hold up new writes.
            self._update_record(meta, record)
            return None
        try:
            key = self._open_or_reuse(meta, record, now)
            return key if self._refresh_validity(key, now) else None
        except self._replaced_when as exc:
            logger.warning("key %s can't be opened, so new writes get a new key: %s", meta, exc)
            return None

    def _may_go_on(self, held: CryptoKey, now: float, cause: AsherahError) -> bool:
        """Tell whether new writes may go on under ``held`` although it can't be renewed."""
        if not held.is_committed or not held.is_valid(now):
            return False
        if isinstance(cause, MetastoreError):
            return True
        # The KMS is down but the metastore answers: a revocation is not to be missed.
        record = self._metastore.load(held.meta)
        return record is not None and not record.revoked

    def _trust_a_little_longer(self, held: CryptoKey, now: float, cause: Exception) -> CryptoKey:
        held.extend_trust(now + min(RETRY_AFTER, self._policy.revoke_check_interval))
        self._notify(StaleKeyKept(held.meta, cause))
        return held

    def _open_or_reuse(self, meta: KeyMeta, record: EnvelopeKeyRecord, now: float) -> CryptoKey:
        """Return the key that ``record``, read just now, holds: the cached one if it is the very same."""
        key = self._update_record(meta, record) or self._cache_opened(meta, record, self._open(meta, record))
        self._schedule_check(key, now)
        return key

    def _update_record(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> CryptoKey | None:
        """Update the cached key that ``record`` holds, and return it; None if there is none."""
        key = self.cache.get(meta)
        return key if key is not None and key.update_record(record) else None

    def _cache_opened(self, meta: KeyMeta, record: EnvelopeKeyRecord, raw: bytearray) -> CryptoKey:
        try:
            key = CryptoKey(meta, record, make_cipher(raw, self._random))
        finally:
            wipe(raw)
        self.cache.put(key)
        return key

    def _schedule_check(self, key: CryptoKey, now: float) -> None:
        # Until the row is certain to last, the key is checked against it before every use: a rolled back
        # transaction takes the row away, and what is encrypted under such a key could never be read again.
        is_committed = self._metastore.is_committed(key.meta, key.record)
        key.trust_until(now + self._policy.revoke_check_interval if is_committed else BEFORE_EVERY_USE)

    def _create(self, key_id: str, newest: EnvelopeKeyRecord | None, now: float) -> CryptoKey:
        """Make and store a key that is newer than ``newest``; whoever's record is stored first is the key."""
        refused = None
        for _ in range(CREATE_ATTEMPTS):
            meta = self._next_meta(key_id, newest, now, refused)
            key = self._store_new(meta, now)
            if key is not None:
                return key
            refused, newest = meta, self._metastore.load_latest(key_id)
            key = self._valid_latest(key_id, standing(meta, newest), now)
            if key is not None:
                return key
        raise never_valid(key_id)

    def _next_meta(
        self, key_id: str, newest: EnvelopeKeyRecord | None, now: float, refused: KeyMeta | None = None
    ) -> KeyMeta:
        """Return the name of a key made now: newer than ``newest``, and than one whose place was taken."""
        # One second later than the newest, whether that was revoked in its own minute or made by a fast clock.
        taken = [other.created + 1 for other in (newest, refused) if other is not None]
        return KeyMeta(key_id, max([self._policy.created_at(now), *taken]))

    def _store_new(self, meta: KeyMeta, now: float) -> CryptoKey | None:
        """Make a key and store it, unless another's record is there already."""
        raw = bytearray(self._random(KEY_LENGTH))
        try:
            record = self._sealer()(raw, meta.created)
            if not self._metastore.store(meta.key_id, record):
                return None
            key = self._cache_opened(meta, record, raw)
        finally:
            wipe(raw)
        return self._begin_use(key, now)

    def _begin_use(self, key: CryptoKey, now: float) -> CryptoKey:
        """Let new writes use a key that this ring has just stored, and tell of it."""
        self._schedule_check(key, now)
        self._refresh_validity(key, now)
        self._notify(KeyCreated(key.meta))
        return key


def standing(meta: KeyMeta, newest: EnvelopeKeyRecord | None) -> EnvelopeKeyRecord:
    """Return the newest record of an id, of which there must be one: the metastore has just refused key ``meta``.

    Raises:
        MetastoreError: there is none.
    """
    if newest is None:
        raise MetastoreError(
            f"the metastore refused key {meta.key_id} created {meta.created}, yet holds none of this id"
        )
    return newest


def never_valid(key_id: str) -> EncryptionError:
    """Return the error for an id of which no key stays valid."""
    return EncryptionError(
        f"no valid key {key_id} could be stored in {CREATE_ATTEMPTS} attempts: others keep retiring it"
    )
