"""The crypto policy: how long a key serves new writes, and how long it is trusted unseen.

Source: ``go/appencryption/policy.go`` of godaddy/asherah, defaults included.
"""

from __future__ import annotations

from dataclasses import dataclass

DAY = 24 * 60 * 60

MAX_SKEW = 5 * 60
"""Seconds that the clocks of two hosts may differ. A key from further ahead was made by a host whose clock is wrong: it
would serve new writes for as long as that clock was ahead, and nothing that is made now would follow it."""


@dataclass(frozen=True, slots=True)
class CryptoPolicy:
    """Pure functions of time; every duration is in seconds.

    Attributes:
        expire_after: a key older than this is expired: it opens old records but takes no new writes.
        revoke_check_interval: how long a cached key is trusted before its record is read again.
        created_precision: a new key's ``created`` is rounded down to a multiple of this.
        renew_ahead: how long before a key expires processes begin to make the next one, each at a moment of its own.
            With 0, as in the official SDKs, nobody begins before the key has expired.
        grace: how long an expired key goes on taking new writes while no new one can be made. With 0, as in the
            official SDKs, it takes none.
    """

    expire_after: float = 90 * DAY
    revoke_check_interval: float = 60 * 60
    created_precision: int = 60
    renew_ahead: float = 0.0
    grace: float = 0.0

    def created_at(self, now: float) -> int:
        """Return the ``created`` of a key made ``now``."""
        # Rounded, so that processes that race choose the same second, and one key is stored, not many. Down, as a key
        # must not come from the future. By no more than its lifetime, which would create keys that are already expired.
        precision = max(1, int(min(self.created_precision, self.expire_after)))
        return int(now) // precision * precision

    def is_from_future(self, created: int, now: float) -> bool:
        """Tell whether a key was ``created`` later than the clocks of two healthy hosts can differ."""
        return created > now + MAX_SKEW

    def expires_at(self, created: int) -> float:
        """Return the last moment at which a key ``created`` then takes new writes; it is expired strictly after it."""
        return created + self.expire_after

    def ends_at(self, created: int) -> float:
        """Return when a key stops taking new writes though no new one can be made (Unix seconds)."""
        return self.expires_at(created) + self.grace
