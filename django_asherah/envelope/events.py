"""Events wait until no key lock is held."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django_asherah.envelope.interfaces import Event, Listener


class EventQueue:
    """A listener that passes events on, but never from inside :meth:`held`.

    Whoever listens may well encrypt something. If that happened while this thread holds a key's lock, two threads
    could deadlock.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._local = threading.local()

    def __call__(self, event: Event) -> None:
        """Pass ``event`` on: now, or when the outermost :meth:`held` of this thread ends."""
        waiting: list[Event] | None = getattr(self._local, "waiting", None)
        if waiting is None:
            self._listener(event)
        else:
            waiting.append(event)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold this thread's events back until the block ends, however it ends."""
        if getattr(self._local, "waiting", None) is not None:
            yield
            return
        waiting: list[Event] = []
        self._local.waiting = waiting
        try:
            yield
        finally:
            self._local.waiting = None
            for event in waiting:
                self._listener(event)
