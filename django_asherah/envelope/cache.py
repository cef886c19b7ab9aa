"""The cache of opened keys."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, field

from django_asherah.envelope.forksafe import PerProcess
from django_asherah.envelope.keys import CryptoKey
from django_asherah.envelope.records import KeyMeta

_OPENING = "opening "
"""Before a key id, it makes a name that is no key id."""


@dataclass(frozen=True, slots=True)
class _Locks:
    """One process's: ``guard`` is held for moments, and the one of a key id by whoever loads or makes a key of it."""

    guard: threading.Lock = field(default_factory=threading.Lock)
    loading: weakref.WeakValueDictionary[str, threading.RLock] = field(default_factory=weakref.WeakValueDictionary)


class KeyCache:
    """Opened keys by (id, created), and which key of an id is current. Bounded and thread-safe.

    Reads take no lock: each is one dict look-up. When full, the key that has gone longest without use makes room
    (second chance). A key may be in use after it was evicted; it is dropped when its last user lets go.

    Attributes:
        opened: the keys. Whoever takes one from here marks it as ``recently_used``. It stays the same dict, as sessions
            hold it.
        newest: by id, the key that new writes used last; the same holds.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.opened: dict[KeyMeta, CryptoKey] = {}
        self.newest: dict[str, CryptoKey] = {}
        self._locks = PerProcess(_Locks)

    def get(self, meta: KeyMeta) -> CryptoKey | None:
        """Return the key with exactly this id and creation time."""
        return _mark(self.opened.get(meta))

    def current(self, key_id: str) -> CryptoKey | None:
        """Return the key of this id that new writes used last."""
        return _mark(self.newest.get(key_id))

    def put(self, key: CryptoKey) -> None:
        """Add ``key``, in place of one with the same id and creation time."""
        with self._locks.get().guard:
            replaced = self.opened.pop(key.meta, None)
            if replaced is not None and replaced is not key:
                self._drop_current(replaced)
            while len(self.opened) >= self._capacity:
                self._evict_one()
            self.opened[key.meta] = key

    def make_current(self, key: CryptoKey) -> None:
        """Let ``key`` be what new writes of its id use."""
        with self._locks.get().guard:
            # Only a key that is in the cache may be current: so the one bound holds for both.
            if self.opened.get(key.meta) is key:
                self.newest[key.meta.key_id] = key
                _mark(key)

    def discard(self, key: CryptoKey) -> None:
        """Forget ``key``."""
        with self._locks.get().guard:
            if self.opened.get(key.meta) is key:
                del self.opened[key.meta]
            self._drop_current(key)

    def clear(self) -> None:
        """Forget every key."""
        with self._locks.get().guard:
            self.opened.clear()
            self.newest.clear()

    def loading(self, key_id: str) -> threading.RLock:
        """Return the lock that whoever loads or makes a key of this id must hold."""
        locks = self._locks.get()
        with locks.guard:
            lock = locks.loading.get(key_id)
            if lock is None:
                lock = locks.loading[key_id] = threading.RLock()
            return lock

    def opening(self, key_id: str) -> threading.RLock:
        """Return the lock that whoever asks the KMS to open a key of this id must hold; it serves nothing else."""
        return self.loading(_OPENING + key_id)

    def _evict_one(self) -> None:
        meta, key = next(iter(self.opened.items()))
        del self.opened[meta]
        if key.recently_used:
            key.recently_used = False
            self.opened[meta] = key
        else:
            self._drop_current(key)

    def _drop_current(self, key: CryptoKey) -> None:
        if self.newest.get(key.meta.key_id) is key:
            del self.newest[key.meta.key_id]

    def __len__(self) -> int:
        return len(self.opened)


def _mark(key: CryptoKey | None) -> CryptoKey | None:
    if key is not None:
        key.recently_used = True
    return key
