"""Checks of keys that whoever uses them can't wait for, because an event loop runs in its thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from django_asherah.envelope.forksafe import PerProcess

logger = logging.getLogger("django_asherah")


def runs_loop() -> bool:
    """Tell whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def close_nothing() -> None:
    """Do nothing: the end of a thread that has opened nothing."""


@dataclass(frozen=True, slots=True)
class Threads:
    """The seam between keys and threads.

    Attributes:
        must_not_wait: tells whether the calling thread must not wait for a metastore or a KMS.
        run: calls a function with arguments in a thread where that may wait, and returns what to await.
        close: is called at the end of a thread of checks, to close what they have opened there.
    """

    must_not_wait: Callable[[], bool] = runs_loop
    run: Callable[..., Awaitable[Any]] = asyncio.to_thread
    close: Callable[[], None] = close_nothing


@dataclass(slots=True)
class _Pending:
    """One process's checks, by name, and the thread that runs them."""

    guard: threading.Lock = field(default_factory=threading.Lock)
    checks: dict[Hashable, Callable[[], None]] = field(default_factory=dict)
    thread: threading.Thread | None = None


class BackgroundChecks:
    """Runs checks one after the other, each name's once at a time, in a thread that lives while there are any.

    Args:
        close: see :class:`Threads`.
    """

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close
        self._pending = PerProcess(_Pending)

    def start(self, name: Hashable, check: Callable[[], None]) -> None:
        """Run ``check`` soon, unless one of that name waits or runs already."""
        pending = self._pending.get()
        with pending.guard:
            pending.checks.setdefault(name, check)
            if pending.thread is None or not pending.thread.is_alive():
                pending.thread = threading.Thread(
                    target=self._run, args=[pending], name="django_asherah.checks", daemon=True
                )
                try:
                    pending.thread.start()
                except RuntimeError:  # There are too many, or Python ends: the next use of such a key tries again.
                    pending.checks.clear()

    def is_under_way(self, name: Hashable) -> bool:
        """Tell whether a check of that name waits or runs."""
        return name in self._pending.get().checks

    def _run(self, pending: _Pending) -> None:
        try:
            while (first := _first(pending)) is not None:
                name, check = first
                try:
                    check()
                except Exception as exc:
                    logger.warning("a check of key %s failed: %s: %s", name, type(exc).__name__, exc)
                finally:
                    with pending.guard:
                        pending.checks.pop(name, None)
        finally:
            self._close()


def _first(pending: _Pending) -> tuple[Hashable, Callable[[], None]] | None:
    with pending.guard:
        first = next(iter(pending.checks.items()), None)
        if first is None:
            pending.thread = None  # Whatever comes from now on is another thread's.
        return first
