"""What was done to keys and data, and by whom: one line on the logger ``django_asherah.audit``, and a signal."""

from __future__ import annotations

import getpass
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from django.dispatch import Signal

from django_asherah.envelope.session import SessionFactory

logger = logging.getLogger("django_asherah.audit")

_acting: ContextVar[str | None] = ContextVar("django_asherah_acting", default=None)


@contextmanager
def acting_as(who: str) -> Iterator[None]:
    """Let the lines and signals of the block say that ``who`` did it: ``admin:alice#7``, for example."""
    token = _acting.set(who)
    try:
        yield
    finally:
        _acting.reset(token)


def actor() -> str:
    """Return who acts here: what the innermost :func:`acting_as` says, else ``os:user@host`` of this process."""
    return _acting.get() or _process_owner()


def record(signal: Signal, action: str, *, level: int = logging.INFO, **details: Any) -> None:
    """Write the line ``action name=value …``, and send the signal with the same details. Both say ``by`` whom.

    A detail that is None is no word of the line.
    """
    details["by"] = actor()
    write(action, level=level, **details)
    signal.send_robust(SessionFactory, **details)


def write(action: str, *, level: int = logging.INFO, **details: Any) -> None:
    """Write a line without a signal."""
    text = "".join(f" {name}={_word(value)}" for name, value in details.items() if value is not None)
    logger.log(level, "%s%s", action, text)


@contextmanager
def recorded(
    signal: Signal, action: str, details: Callable[[], dict[str, Any]], *, has_problems: Callable[[], bool]
) -> Iterator[None]:
    """Record an action when the block ends, however it ends.

    The detail ``error`` is the class of the exception that has broken it off; None if it was done.

    Args:
        signal: as for :func:`record`.
        action: the same.
        details: returns what was done so far.
        has_problems: tells whether something was found that is wrong, which makes the line a warning.
    """
    error, is_warning = None, False
    try:
        yield
    except BaseException as exc:
        # Who interrupts it knows that.
        error, is_warning = type(exc).__name__, isinstance(exc, Exception)
        raise
    finally:
        level = logging.WARNING if is_warning or has_problems() else logging.INFO
        record(signal, action, level=level, **details(), error=error)


@cache
def _process_owner() -> str:
    return f"os:{_user_name()}@{socket.gethostname()}"


def _user_name() -> str:
    """Return the name of the user that this process runs as, whatever its environment says; the number if it has none.

    A container's user often has no name.
    """
    try:
        import pwd
    except ImportError:
        return getpass.getuser()
    user = os.geteuid()
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _word(value: Any) -> str:
    """Return ``value`` in a form that can't be mistaken for the next detail or another line."""
    if isinstance(value, Exception):
        value = f"{type(value).__name__}: {value}"
    text = ",".join(value) if isinstance(value, list) else str(value)
    plain = text.isprintable() and not any(char in text for char in ' "=')
    return text if plain else json.dumps(text)
