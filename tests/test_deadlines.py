"""Calls that end in time, whatever they wait for."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from django_asherah.deadlines import MOST_LEFT, DeadlineError, Deadlines
from tests.forking import Fork, either_fork, in_child

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


@pytest.fixture
def released() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def leave(deadlines: Deadlines, released: threading.Event) -> threading.Thread:
    """Leave a call behind; return its thread."""
    started: list[threading.Thread] = []

    def hang() -> None:
        started.append(threading.current_thread())
        released.wait()

    with pytest.raises(DeadlineError, match=r"the KMS has not answered within 0\.05 seconds"):
        deadlines.within(0.05, hang)
    return started[0]


def test_the_answer_is_returned_and_its_thread_is_gone() -> None:
    threads: list[threading.Thread] = []

    def answer() -> str:
        threads.append(threading.current_thread())
        return "an answer"

    assert Deadlines("the KMS").within(60, answer) == "an answer"
    assert [thread.is_alive() for thread in threads] == [False]
    assert [(thread.name, thread.daemon) for thread in threads] == [("the KMS", True)]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1), KeyboardInterrupt()], ids=repr)
def test_what_it_raises_is_raised(error: BaseException) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        Deadlines("the KMS").within(60, fail)
    assert caught.value is error


def test_the_callers_context_is_seen_and_not_changed() -> None:
    def look() -> str:
        found = tenant.get()
        tenant.set("another")
        return found

    tenant.set("clinic-7")
    assert Deadlines("the KMS").within(60, look) == "clinic-7"
    assert tenant.get() == "clinic-7"


def test_with_too_many_left_behind_nothing_more_is_called_until_one_ends(released: threading.Event) -> None:
    deadlines, called = Deadlines("the KMS"), []
    left = [leave(deadlines, released) for _ in range(MOST_LEFT)]

    with pytest.raises(DeadlineError, match="the KMS is not asked: 4 earlier calls still wait for its answer"):
        deadlines.within(60, lambda: called.append("one more"))
    assert called == []
    assert Deadlines("another").within(60, lambda: "answers") == "answers"

    released.set()
    for thread in left:
        thread.join()
    assert deadlines.within(60, lambda: "again") == "again"


def test_callers_who_come_at_once_leave_one_call_each_and_later_ones_none(released: threading.Event) -> None:
    deadlines, started, errors = Deadlines("the KMS"), [], []

    def hang() -> None:
        started.append(1)
        released.wait()

    def ask() -> None:
        try:
            deadlines.within(1, hang)
        except DeadlineError as exc:
            errors.append(str(exc).partition(":")[0])

    callers = [threading.Thread(target=ask) for _ in range(10)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    ask()
    assert len(started) <= 10
    assert (len(errors), errors[-1]) == (11, "the KMS is not asked")


@either_fork
def test_a_forked_child_has_left_nothing_behind(fork: Fork, released: threading.Event) -> None:
    deadlines = Deadlines("the KMS")
    for _ in range(MOST_LEFT):
        leave(deadlines, released)
    assert in_child(fork, lambda: deadlines.within(60, lambda: "an answer")) == "an answer"
    with pytest.raises(DeadlineError, match="is not asked"):
        deadlines.within(60, lambda: "an answer")


def output_of(program: str) -> tuple[str, str]:
    """Run a program in an interpreter of its own; return what it wrote to standard output and to standard error."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    return done.stdout, done.stderr


@pytest.mark.slow
def test_the_interpreter_ends_while_a_call_hangs() -> None:
    program = """
        import threading
        from django_asherah.deadlines import DeadlineError, Deadlines

        try:
            Deadlines("the KMS").within(0.05, threading.Event().wait)
        except DeadlineError as exc:
            print(exc)
    """
    assert output_of(program) == ("the KMS has not answered within 0.05 seconds\n", "")


@pytest.mark.slow
def test_what_is_called_while_the_interpreter_ends_is_answered() -> None:
    program = """
        import atexit
        from django_asherah.deadlines import Deadlines

        atexit.register(lambda: print(Deadlines("the KMS").within(60, lambda: "an answer")))
    """
    assert output_of(program) == ("an answer\n", "")
