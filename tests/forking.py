"""Forks: Python's own, and one that Python hears nothing of, as uWSGI's."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

T = TypeVar("T")
Fork = Callable[[], int]


def fork_unheard() -> int:
    """Fork without a word to Python.

    A thread that asks for the interpreter's lock at that moment is not there in the child to take it, and the child
    would wait for it: so each gets it before, and none asks for it again by force.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)
    time.sleep(2 * interval)
    try:
        return int(ctypes.PyDLL(None).fork())
    finally:
        sys.setswitchinterval(interval)


FORKS: dict[str, Fork] = {"with hooks": os.fork, "without hooks": fork_unheard}

SECONDS = 30
"""After which a child is taken to wait for ever, and killed."""


def either_fork(test: Any) -> Any:
    """Run a test with each kind of ``fork``."""
    for mark in (
        pytest.mark.slow,
        pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
        pytest.mark.parametrize("fork", FORKS.values(), ids=FORKS),
    ):
        test = mark(test)
    return test


def in_child(fork: Fork, work: Callable[[], T]) -> T:
    """Return what ``work`` returns in a forked child."""
    reading, writing = os.pipe()
    child = fork()
    if not child:
        _answer(writing, work)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, "the child hangs" if code == -signal.SIGALRM else said.decode()
    answer: T = pickle.loads(said)
    return answer


def _answer(writing: int, work: Callable[[], Any]) -> None:
    """End this process, having written what ``work`` returns, or why it failed."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS)
    code = 1
    try:
        said = pickle.dumps(work())
        code = 0
    except BaseException:
        said = traceback.format_exc().encode()
    finally:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(said)
        os._exit(code)
