"""What was done to which key or data, and by whom: one line on the logger ``django_asherah.audit``, and a signal."""

from __future__ import annotations

import getpass
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from django.dispatch import Signal

from django_asherah.envelope.forksafe import ForkSafeLock
from django_asherah.envelope.session import SessionFactory

logger = logging.getLogger("django_asherah.audit")

ONCE_IN = 60.0
"""Seconds in which a line that repeats for one key id is written once."""

_MOST_REMEMBERED = 1000

_actor: ContextVar[str] = ContextVar("django_asherah.audit.actor", default="")


@contextmanager
def acting_as(actor: str) -> Iterator[None]:
    """Let the lines of this block say that ``actor`` did it: ``admin:7:ada``, for example, or ``celery:<task id>``."""
    token = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(token)


def record(signal: Signal, action: str, *, level: int = logging.INFO, **details: Any) -> None:
    """Write the line ``action name=value … by=actor``, and send the signal with the same details."""
    _write(level, action, details)
    signal.send_robust(SessionFactory, **details)


def record_seldom(signal: Signal, action: str, key_id: str, *, level: int = logging.WARNING, **details: Any) -> None:
    """Send the signal each time, and write the line once a minute for each key id, with how many were left out."""
    left_out = _seldom.ask(key_id)
    if left_out is not None:
        _write(level, action, {"key_id": key_id, **details, "left_out": left_out})
    signal.send_robust(SessionFactory, key_id=key_id, **details)


@contextmanager
def recorded(signal: Signal, action: str, find_details: Callable[[], dict[str, Any]]) -> Iterator[None]:
    """Record what the block has done when it ends, and also if it is broken off: then ``broken_off`` says by what."""
    broken_off = ""
    try:
        yield
    except BaseException as exc:
        broken_off = type(exc).__name__
        raise
    finally:
        record(signal, action, **find_details(), broken_off=broken_off)


def _write(level: int, action: str, details: dict[str, Any]) -> None:
    named = {**details, "by": _actor.get() or _operator()}
    logger.log(level, "%s%s", action, "".join(f" {name}={_word(value)}" for name, value in named.items()))


@cache
def _operator() -> str:
    """Return the user of this process and its host. Not what the environment says, which anybody could set."""
    try:
        import pwd

        user = pwd.getpwuid(os.geteuid()).pw_name
    except ImportError:
        user = getpass.getuser()
    except KeyError:  # A container may run as a user whom nobody has named.
        user = str(os.geteuid())
    return f"os:{user}@{socket.gethostname()}"


class _Seldom:
    """Remembers when a line was last written for which key id. Bounded and thread-safe."""

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._written: dict[str, tuple[float, int]] = {}

    def ask(self, key_id: str) -> int | None:
        """Return how many lines were left out since the last one, if another may be written now; else None."""
        now = time.monotonic()
        with self._lock:
            at, left_out = self._written.get(key_id, (-ONCE_IN, 0))
            if now - at < ONCE_IN:
                self._written[key_id] = (at, left_out + 1)
                return None
            self._written.pop(key_id, None)
            while len(self._written) >= _MOST_REMEMBERED:
                del self._written[next(iter(self._written))]
            self._written[key_id] = (now, 0)
            return left_out


_seldom = _Seldom()


def _word(value: Any) -> str:
    """Return ``value`` in a form that can't be mistaken for the next detail or another line."""
    if isinstance(value, Exception):
        value = f"{type(value).__name__}: {value}"
    text = ",".join(value) if isinstance(value, list) else str(value)
    plain = text.isprintable() and not any(char in text for char in ' "=')
    return text if plain else json.dumps(text)
