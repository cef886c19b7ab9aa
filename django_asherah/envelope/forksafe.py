"""What a forked child must not share with its parent."""

from __future__ import annotations

import os
import threading
import weakref
from abc import ABC, abstractmethod

_instances: weakref.WeakSet[ForkSafe] = weakref.WeakSet()


class ForkSafe(ABC):
    """Holds locks or connections, which every forked child makes anew.

    A thread that held a lock at the fork does not exist in the child to release it, and a socket shared by two
    processes mixes up their answers.
    """

    def __init__(self) -> None:
        self._make_anew()
        _instances.add(self)

    @abstractmethod
    def _make_anew(self) -> None:
        """Make the locks and connections: called once at the start, and once in every forked child."""


class ForkSafeLock(ForkSafe):
    """A lock that is free in every forked child, whoever held it at the fork."""

    def _make_anew(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()


def _renew_in_child() -> None:
    failures: list[Exception] = []
    for instance in list(_instances):
        try:
            instance._make_anew()
        except Exception as exc:  # The others' locks must be free all the same.
            failures.append(exc)
    if failures:
        raise failures[0]


os.register_at_fork(after_in_child=_renew_in_child)
