"""Keys that could not be loaded a moment ago."""

from __future__ import annotations

import threading

from django_asherah.envelope.forksafe import PerProcess
from django_asherah.envelope.records import KeyMeta

FORGOTTEN_AFTER = 10.0
"""Seconds: this often, a row that nobody can read costs its list page a query, and a KMS that is back is noticed."""


class Unavailable:
    """Remembers which keys could not be loaded, for ten seconds. Bounded and thread-safe.

    Args:
        capacity: how many are remembered; the oldest make room.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._until: dict[KeyMeta, float] = {}
        self._lock = PerProcess(threading.Lock)

    def add(self, meta: KeyMeta, now: float) -> None:
        """Remember ``meta`` from ``now`` on, in seconds of a timer."""
        with self._lock.get():
            self._until.pop(meta, None)
            while len(self._until) >= self._capacity:
                del self._until[next(iter(self._until))]
            self._until[meta] = now + FORGOTTEN_AFTER

    def has(self, meta: KeyMeta, now: float) -> bool:
        """Tell whether ``meta`` could not be loaded in the ten seconds before ``now``."""
        until = self._until.get(meta)
        return until is not None and now < until

    def clear(self) -> None:
        """Forget all."""
        with self._lock.get():
            self._until.clear()

    def __len__(self) -> int:
        return len(self._until)
