"""What a forked process must not share with its parent."""

from __future__ import annotations

import os
from collections.abc import Callable
from random import SystemRandom
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """Something that each process makes for itself: a lock, a client, what it knows of others. Thread-safe.

    A thread that held a lock at the fork does not exist in the child to release it, and a socket shared by two
    processes mixes up their answers. Some servers fork without running any hook of Python's (uWSGI does), so that only
    the process id tells. Take a lock in one go, as in ``with lock.get():``, and what is released is what was taken.

    Args:
        make: returns a new one. What it raises is raised to whoever asked, and the next one asks it again.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._own: dict[int, T] = {}
        self._inherited: list[T | None] = []

    def get(self) -> T:
        """Return this process's own, made now if there is none."""
        try:
            return self._own[os.getpid()]
        except KeyError:
            return self._begin(os.getpid())

    def _begin(self, process: int) -> T:
        own = self._own.setdefault(process, self._make())  # Of two threads that come first, both get the same.
        for other in tuple(self._own):
            if other != process:  # Its id may come back. Kept all the same: to end a client takes locks of that client.
                self._inherited.append(self._own.pop(other, None))
        return own


any_fraction = SystemRandom().random
"""Returns a number from 0 up to 1, drawn by the operating system: a generator's state would go on the same in every
forked process, and they would all come back from a pause at once."""
