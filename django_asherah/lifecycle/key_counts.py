"""How many values need each key, where there may be a key for each of a million partitions."""

from __future__ import annotations

from django_asherah.envelope.records import KeyMeta

MOST_COUNTED = 1000
"""Keys that a report counts one by one."""


class KeyCounts(dict[KeyMeta, int]):
    """The values that need each of the oldest keys, in constant memory.

    Every count is exact, and so is what is missing: a key that is older than :attr:`uncounted_since` and not in here is
    needed by no value. Whoever wants to get rid of old keys asks nothing else.

    Attributes:
        uncounted: how many values need keys that are not in here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.uncounted = 0
        self._limit: tuple[int, str] | None = None

    @property
    def uncounted_since(self) -> int | None:
        """When the oldest key that is needed and not in here was created (Unix seconds); None if there is none."""
        return self._limit[0] if self._limit else None

    def add(self, key: KeyMeta, count: int = 1) -> None:
        """Count ``count`` more values that need ``key``."""
        if self._limit is not None and _age(key) >= self._limit:
            self.uncounted += count
            return
        self[key] = self.get(key, 0) + count
        if len(self) > 2 * MOST_COUNTED:
            self.cut()

    def merge(self, other: KeyCounts) -> None:
        """Add what another process counted."""
        for key, count in other.items():
            self.add(key, count)
        self.uncounted += other.uncounted
        if other._limit is not None and (self._limit is None or other._limit < self._limit):
            self._limit = other._limit
            self._drop([key for key in self if _age(key) >= other._limit])

    def cut(self) -> None:
        """Let the oldest ``MOST_COUNTED`` keys stay."""
        # A key once dropped never comes back with a part of its count: that many are older, and stay older.
        dropped = sorted(self, key=_age)[MOST_COUNTED:]
        if dropped:
            self._limit = _age(dropped[0])
            self._drop(dropped)

    def _drop(self, keys: list[KeyMeta]) -> None:
        self.uncounted += sum(self.pop(key) for key in keys)


def _age(key: KeyMeta) -> tuple[int, str]:
    return key.created, key.key_id
