"""A deadline over calls of client libraries, whose own timeouts bound each wait but never the whole call.

A server that sends a byte a second, a name with many addresses that don't answer and a name server that doesn't: each
outlasts every timeout of a socket.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TypeVar

from django_asherah.envelope.forksafe import PerProcess

T = TypeVar("T")

MOST_LEFT = 4
"""Calls of one service that may go on behind their deadline. With so many, it is not asked until one has ended."""


class DeadlineError(TimeoutError):
    """A call did not end in time, or was not made because others still go on behind their deadlines."""


@dataclass(slots=True)
class _Left:
    """The threads that one process has left behind."""

    threads: list[threading.Thread] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Deadlines:
    """Makes calls to one service, each with a deadline. Thread-safe; a forked child has left no call behind.

    Nobody can end a thread. One whose call has not ended in time is left behind, with whatever it still waits for, and
    keeps no interpreter from ending.

    Args:
        service: its name, for the threads and the errors.
    """

    def __init__(self, service: str) -> None:
        self._service = service
        self._left = PerProcess(_Left)

    def within(self, seconds: float, call: Callable[[], T]) -> T:
        """Return what ``call`` returns, called in a thread of its own with the caller's context variables.

        Raises:
            DeadlineError: it has not ended after ``seconds``; or it was not called, as :data:`MOST_LEFT` others that
                had not ended in time still go on.
            Exception: whatever ``call`` raises.
        """
        self._require_few_left()
        answer: Future[T] = Future()
        thread = threading.Thread(
            target=copy_context().run, args=(_answer, answer, call), name=self._service, daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # The interpreter is ending, and starts no threads: what is saved last must not be lost.
            return call()
        try:
            thread.join(seconds)
        finally:
            self._note(thread)
        if not answer.done():
            raise DeadlineError(f"{self._service} has not answered within {seconds:.3g} seconds")
        return answer.result()

    def _require_few_left(self) -> None:
        left = self._left.get()
        with left.lock:
            left.threads = [thread for thread in left.threads if thread.is_alive()]
            if len(left.threads) >= MOST_LEFT:
                raise DeadlineError(
                    f"{self._service} is not asked: {len(left.threads)} earlier calls still wait for its answer, long "
                    "after their deadline"
                )

    def _note(self, thread: threading.Thread) -> None:
        if thread.is_alive():
            left = self._left.get()
            with left.lock:
                left.threads.append(thread)


def _answer(answer: Future[T], call: Callable[[], T]) -> None:
    try:
        answer.set_result(call())
    except BaseException as exc:  # It is raised to the caller, and never printed by this thread.
        answer.set_exception(exc)
