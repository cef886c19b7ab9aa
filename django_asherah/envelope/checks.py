"""Checks of keys that whoever uses them can't wait for, because an event loop runs in its thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any

from django_asherah.envelope.forksafe import ForkSafe

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


class BackgroundChecks(ForkSafe):
    """Runs checks one after the other, each name's once at a time, in a thread that lives while there are any.

    Args:
        close: see :class:`Threads`.
    """

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close
        super().__init__()

    def _make_anew(self) -> None:
        self._guard = threading.Lock()
        self._checks: dict[Hashable, Callable[[], None]] = {}
        self._thread: threading.Thread | None = None

    def start(self, name: Hashable, check: Callable[[], None]) -> None:
        """Run ``check`` soon, unless one of that name waits or runs already."""
        with self._guard:
            self._checks.setdefault(name, check)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="django_asherah.checks", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # There are too many, or Python ends: the next use of such a key tries again.
                    self._checks.clear()

    def is_under_way(self, name: Hashable) -> bool:
        """Tell whether a check of that name waits or runs."""
        return name in self._checks

    def _run(self) -> None:
        try:
            while (first := self._first()) is not None:
                name, check = first
                try:
                    check()
                except Exception as exc:
                    logger.warning("a check of key %s failed: %s: %s", name, type(exc).__name__, exc)
                finally:
                    with self._guard:
                        self._checks.pop(name, None)
        finally:
            self._close()

    def _first(self) -> tuple[Hashable, Callable[[], None]] | None:
        with self._guard:
            first = next(iter(self._checks.items()), None)
            if first is None:
                self._thread = None  # Whatever comes from now on is another thread's.
            return first
