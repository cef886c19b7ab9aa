"""Which region to ask first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

PROBE_AFTER = 60.0
"""Seconds for which a region that failed is asked last, before one caller tries it in its own place again."""


@dataclass(frozen=True, slots=True)
class LastAnswer:
    """How a region's last answer to this process was.

    Attributes:
        ok: False if it was a failure.
        age: how many seconds ago it was.
    """

    ok: bool
    age: float


class RegionHealth:
    """Remembers which regions failed lately. Thread-safe.

    A stalled region costs a whole timeout, so only one caller per minute may find out whether it is back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failed_at: dict[str, float] = {}
        self._answers: dict[str, tuple[bool, float]] = {}
        self._lock = threading.Lock()

    def order(self, regions: Iterable[str]) -> list[str]:
        """Return ``regions`` with those that failed lately at the end."""
        with self._lock:
            now = self._clock()
            return sorted(regions, key=lambda region: self._is_last(region, now))

    def _is_last(self, region: str, now: float) -> bool:
        failed_at = self._failed_at.get(region)
        if failed_at is None:
            return False
        if now - failed_at < PROBE_AFTER:
            return True
        self._failed_at[region] = now  # This caller probes; for the others the region stays last.
        return False

    def succeeded(self, region: str) -> None:
        """Note that ``region`` answered."""
        self._answers[region] = (True, self._clock())
        if region in self._failed_at:
            with self._lock:
                self._failed_at.pop(region, None)

    def failed(self, region: str) -> None:
        """Note that ``region`` failed just now."""
        with self._lock:
            now = self._clock()
            self._failed_at[region] = now
            self._answers[region] = (False, now)

    def last_answers(self) -> dict[str, LastAnswer]:
        """Return how each region's last answer was, for every region that was asked."""
        now = self._clock()
        return {region: LastAnswer(ok, now - at) for region, (ok, at) in dict(self._answers).items()}
