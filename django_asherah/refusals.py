"""Records that were refused: each is signalled, and few are logged, however many somebody has damaged."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from django_asherah import audit, signals
from django_asherah.envelope.forksafe import PerProcess
from django_asherah.envelope.interfaces import RecordRefused
from django_asherah.envelope.session import SessionFactory

PERIOD = 60.0
"""Seconds between two lines about one key id."""

MOST_KEY_IDS = 1000
"""Key ids that have lines of their own within a period; all further ones share those of ``OTHERS``."""

OTHERS = ""


class Refusals:
    """Tells of refused records: a signal for each, a line a minute for each key id. Thread-safe.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = PerProcess(threading.Lock)
        # When the last line was written, and how many were left out since, by key id: the oldest line first.
        self._lines: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def tell(self, refused: RecordRefused) -> None:
        """Send the signal, and write the line unless there was one within the last minute."""
        named = {"key_id": refused.key_id, "created": refused.created, "reason": refused.reason, "by": audit.actor()}
        left_out = self._admit(refused.key_id)
        if left_out is not None:
            audit.write("record_refused", level=logging.WARNING, **named, left_out=left_out or None)
        signals.record_refused.send_robust(SessionFactory, **named)

    def _admit(self, key_id: str) -> int | None:
        """Return how many lines were left out since the last; None if this is to be left out, too."""
        with self._lock.get():
            now = self._clock()
            if key_id not in self._lines and not self._has_room(now):
                key_id = OTHERS
            last, left_out = self._lines.get(key_id, (None, 0))
            if last is not None and now - last < PERIOD:
                self._lines[key_id] = (last, left_out + 1)
                return None
            self._lines[key_id] = (now, 0)
            self._lines.move_to_end(key_id)
            return left_out

    def _has_room(self, now: float) -> bool:
        while len(self._lines) >= MOST_KEY_IDS:
            oldest, (last, _) = next(iter(self._lines.items()))
            if now - last < PERIOD:
                return False
            del self._lines[oldest]
        return True
