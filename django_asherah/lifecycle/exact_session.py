"""A MySQL session that stores what it is given or refuses it, and returns what is stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_CHARSET = "utf8mb4"
_STRICT = "STRICT_ALL_TABLES"
_ABOUT_DATES = frozenset({"TRADITIONAL", "NO_ZERO_DATE", "NO_ZERO_IN_DATE"})
"""A strict session would refuse a table for the dates in its other columns."""


@contextmanager
def exact_session(connection: Any) -> Iterator[None]:
    """Let the session be strict and speak utf8mb4, whatever ``OPTIONS`` say, and put both back.

    Without strictness MySQL and MariaDB replace a character that a column can't hold by ``?``, and cut what is too
    long. A session of another character set reads ``?`` for every character that is not in that one, in primary keys
    too. Other databases refuse what they can't store.
    """
    if connection.vendor != "mysql":
        yield
        return
    connection.ensure_connection()
    driver = connection.connection
    (mode,) = _ask(driver, "SELECT @@SESSION.sql_mode")
    charset = driver.character_set_name()
    strict = sorted({*mode.split(","), _STRICT} - _ABOUT_DATES - {""})
    _ask(driver, f"SET SESSION sql_mode = '{','.join(strict)}'")
    if charset != _CHARSET:
        driver.set_character_set(_CHARSET)
    try:
        yield
    finally:
        if connection.connection is driver and _is_alive(driver):
            _ask(driver, f"SET SESSION sql_mode = '{mode}'")
            if charset != _CHARSET:
                driver.set_character_set(charset)


def _ask(driver: Any, statement: str) -> Any:
    # Django would refuse it in a transaction that has failed, and the session outlives that.
    cursor = driver.cursor()
    try:
        cursor.execute(statement)
        return cursor.fetchone()
    finally:
        cursor.close()


def _is_alive(driver: Any) -> bool:
    try:
        driver.ping()
    except Exception:  # Each driver has errors of its own; there is no session left to put back.
        return False
    return True
