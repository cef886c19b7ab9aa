"""Loading and opening the keys of one level of the hierarchy, and checking them again from time to time."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

from django_asherah.envelope.aead import wipe
from django_asherah.envelope.cache import KeyCache
from django_asherah.envelope.checks import BackgroundChecks, Threads
from django_asherah.envelope.clocks import Clocks, Moment
from django_asherah.envelope.events import EventQueue
from django_asherah.envelope.interfaces import CacheMissed, LendsConnections, Metastore, Random, StaleKeyKept
from django_asherah.envelope.keys import BEFORE_EVERY_USE, CryptoKey
from django_asherah.envelope.native import make_cipher
from django_asherah.envelope.policy import CryptoPolicy
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta
from django_asherah.exceptions import (
    AsherahError,
    DecryptionError,
    InvalidRecordError,
    KeyNotFoundError,
    KMSError,
    MetastoreError,
)

RETRY_AFTER = 60.0
"""Seconds for which a key that was due for its revoke check is trusted when its record can't be read."""

LOADING_TIMEOUT = 30.0
"""Seconds for which whoever needs a key waits for another thread that loads or makes it: each of several regions may
take the whole of its deadline before the next is asked."""


@dataclass(frozen=True, slots=True)
class Collaborators:
    """What every key ring works with.

    ``loading_timeout`` is how many seconds one thread waits for another that loads or makes the same key.
    """

    metastore: Metastore
    policy: CryptoPolicy
    clocks: Clocks
    random: Random
    notify: EventQueue
    cache_size: int
    loading_timeout: float
    threads: Threads


class KeyLoader(ABC):
    """The opened keys of one level. Thread-safe; one loader per key id at a time, of those that may wait for another.

    Whoever may not wait (:class:`~django_asherah.envelope.interfaces.LendsConnections`) reads for itself, and needs a
    key's lock only to make a new one.

    A key that was opened and committed goes on opening what it has sealed as long as its row is there, whatever has
    become of the row, the metastore or the KMS: nothing takes the last usable key away from a process.
    """

    def __init__(self, collaborators: Collaborators) -> None:
        self._metastore = collaborators.metastore
        self._policy = collaborators.policy
        self._clocks = collaborators.clocks
        self._timer = collaborators.clocks.timer
        self._random = collaborators.random
        self._notify = collaborators.notify
        self._loading_timeout = collaborators.loading_timeout
        self.threads = collaborators.threads
        self._checks = BackgroundChecks(self.threads.close)
        self.cache = KeyCache(collaborators.cache_size)
        metastore = collaborators.metastore
        self._may_wait = metastore.may_wait if isinstance(metastore, LendsConnections) else _always

    def exact(self, meta: KeyMeta) -> CryptoKey:
        """Return the key that a record names, expired and revoked ones included.

        Raises:
            KeyNotFoundError: the metastore has no such key.
            KMSError, MetastoreError: it is not cached and can't be loaded.
            DecryptionError: its own record can't be opened.
        """
        key = self.in_hand(meta)
        if key is not None:
            return key
        key, lock = self.cache.get(meta), self.cache.loading(meta.key_id)
        if key is not None and key.is_committed:
            if not lock.acquire(blocking=False):
                # Only whoever checks a key waits for a slow metastore: the others read on with the key they have.
                return key
        elif not self._may_wait():
            with self._notify.held():
                return self._load(meta)
        elif not lock.acquire(timeout=self._loading_timeout):
            raise self._still_loading(meta.key_id)
        with self._notify.held():
            try:
                return self._load(meta)
            finally:
                lock.release()

    def in_hand(self, meta: KeyMeta) -> CryptoKey | None:
        """Return the cached key if it may be used without waiting for a look at its record, else None.

        To a caller that must not wait, it serves while a thread has that look.
        """
        key = self.cache.get(meta)
        if key is None or key.is_trusted(self._timer()):
            return key
        if not key.is_committed or not self.threads.must_not_wait():
            return None
        self._check_later(key)
        return key

    def require_checks(self) -> None:
        """Let every opened key be checked against its row before its next use."""
        now = self._timer()
        for key in list(self.cache.opened.values()):
            key.require_check(now)

    def clear(self) -> None:
        """Forget every opened key."""
        self.cache.clear()

    def __len__(self) -> int:
        """Return how many opened keys are cached."""
        return len(self.cache)

    @abstractmethod
    def _open(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> bytearray:
        """Return the raw key that ``record`` holds."""

    def _loading(self, key_id: str) -> AbstractContextManager[None]:
        return self._holding(self.cache.loading(key_id), key_id)

    @contextmanager
    def _holding(self, lock: threading.RLock, key_id: str) -> Iterator[None]:
        if not lock.acquire(timeout=self._loading_timeout):
            raise self._still_loading(key_id)
        try:
            yield
        finally:
            lock.release()

    def _check_later(self, key: CryptoKey) -> None:
        self._checks.start(key.meta, partial(self._check_now, key, self._check))

    def _check(self, key: CryptoKey) -> None:
        """Check a key if it is still due; the caller holds its id's lock."""
        self._load(key.meta)

    def _check_now(self, key: CryptoKey, check: Callable[[CryptoKey], None]) -> None:
        """Check ``key`` in a thread that may wait; if that can't be done, it is due again in a minute."""
        with self._notify.held(), self._loading(key.meta.key_id):
            if self.cache.get(key.meta) is not key:
                return  # Forgotten since.
            try:
                check(key)
            except Exception:
                now = self._clocks.now()
                key.extend_trust(self._retry_at(now), now)
                raise

    def _still_loading(self, key_id: str) -> KMSError:
        return KMSError(
            f"key {key_id} could not be had: another thread has been loading or making it for more than "
            f"{self._loading_timeout:g} seconds. Are the KMS and the metastore slow?"
        )

    def _load(self, meta: KeyMeta) -> CryptoKey:
        """Load or check a key."""
        key, now = self.cache.get(meta), self._clocks.now()
        if key is not None and key.is_trusted(now.timer):
            return key
        self._notify(CacheMissed(meta.key_id))
        is_revoked = False
        try:
            record = self._read(meta)
            is_revoked = bool(record.revoked)
            return self._open_or_reuse(meta, record, now)
        except KeyNotFoundError:
            if key is not None:
                self.cache.discard(key)
            raise
        except (MetastoreError, KMSError, DecryptionError) as exc:
            if key is None or not key.is_committed:
                raise
            if is_revoked or isinstance(exc, DecryptionError):
                return self._keep_for_reading(key, now, exc)
            return self._trust_a_little_longer(key, now, exc)

    def _read(self, meta: KeyMeta) -> EnvelopeKeyRecord:
        record = self._metastore.load(meta)
        if record is None:
            raise KeyNotFoundError(
                f"the metastore has no key {meta}: was its row deleted, or is this another key table?"
            )
        if record.created != meta.created:
            raise InvalidRecordError(f"the row of key {meta} holds the record of a key created {record.created}")
        return record

    def _trust_a_little_longer(self, held: CryptoKey, now: Moment, cause: AsherahError) -> CryptoKey:
        held.extend_trust(self._retry_at(now), now)
        self._notify(StaleKeyKept(held.meta, cause))
        return held

    def _keep_for_reading(self, held: CryptoKey, now: Moment, cause: AsherahError) -> CryptoKey:
        """Keep a key whose row holds something else by now: no other process could open what it sealed from now on."""
        held.stop_writes(self._retry_at(now))
        self._notify(StaleKeyKept(held.meta, cause))
        return held

    def _retry_at(self, now: Moment) -> float:
        return now.timer + min(RETRY_AFTER, self._policy.revoke_check_interval)

    def _open_or_reuse(self, meta: KeyMeta, record: EnvelopeKeyRecord, now: Moment) -> CryptoKey:
        """Return the key that ``record``, read just now, holds: the cached one if it is the very same."""
        key = self._update_record(meta, record) or self._open_once(meta, record)
        self._schedule_check(key, now)
        return key

    def _open_once(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> CryptoKey:
        """Return the opened key, which is cached now."""
        raw = self._open(meta, record)
        opened_meanwhile = self._update_record(meta, record)
        if opened_meanwhile is not None:
            wipe(raw)
            return opened_meanwhile
        return self._cache_opened(meta, record, raw)

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

    def _schedule_check(self, key: CryptoKey, now: Moment) -> None:
        # Until the row is certain to last, the key is checked against it before every use: a rolled back
        # transaction takes the row away, and what is encrypted under such a key could never be read again.
        is_committed = self._metastore.is_committed(key.meta, key.record)
        key.trust_until(now.timer + self._policy.revoke_check_interval if is_committed else BEFORE_EVERY_USE)


def _always() -> bool:
    return True
