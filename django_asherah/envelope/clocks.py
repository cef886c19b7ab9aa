"""What time it is: on the wall, by which keys expire, and on a timer, by which they are checked."""

from __future__ import annotations

from dataclasses import dataclass

from django_asherah.envelope.interfaces import Clock
from django_asherah.envelope.records import MAX_CREATED
from django_asherah.exceptions import EncryptionError


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment on both clocks.

    Attributes:
        wall: Unix seconds. It may jump, whenever somebody sets the clock.
        timer: seconds from any fixed point. It never goes back.
    """

    wall: float
    timer: float


@dataclass(frozen=True, slots=True)
class Clocks:
    """Both clocks of a process."""

    wall: Clock
    timer: Clock

    def now(self) -> Moment:
        """Return this moment."""
        return Moment(self.wall(), self.timer())


LONGEST_PAUSE = 60.0
"""Seconds for which a process may stand still without its keys being looked at again."""


class Standstill:
    """Notices that a process stood still: the wall clock went on, and the timer did not.

    So do a frozen AWS Lambda environment, a snapshot from which one is restored, and a suspended machine. By the timer
    alone, a key would be trusted for all that time, and after it for the rest of its hour.
    """

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self._apart = self._measure()

    def has_ended(self) -> bool:
        """Tell whether the process has stood still for more than a minute in all since this was last true."""
        apart = self._measure()
        if apart - self._apart > LONGEST_PAUSE:
            self._apart = apart
            return True
        self._apart = min(self._apart, apart)  # Somebody may set the wall clock back.
        return False

    def _measure(self) -> float:
        now = self._clocks.now()
        return now.wall - now.timer


def require_representable(wall: float) -> int:
    """Return a moment in whole Unix seconds, as records hold it.

    Raises:
        EncryptionError: no record can say it: what was written with it could never be read.
    """
    if 0 <= wall < MAX_CREATED + 1:
        return int(wall)
    raise EncryptionError(
        f"the clock of this host says {wall:.0f} seconds since 1970, and records hold 0 to {MAX_CREATED} "
        "(the end of the year 9999): set the clock"
    )
