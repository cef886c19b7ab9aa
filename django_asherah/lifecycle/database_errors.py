"""What an error of a database says, by its code alone: its message may show the value that was being written."""

from __future__ import annotations

from django.db import DatabaseError, DataError, IntegrityError

_DEADLOCK = "a deadlock with another transaction"
_WRITTEN_FIRST = "another transaction wrote first"
_TIMEOUT = "another transaction holds a lock, and the time to wait for it ran out ({setting})"
_LOCKS = {
    "40P01": _DEADLOCK,
    "1213": _DEADLOCK,
    "40001": _WRITTEN_FIRST,
    "1020": _WRITTEN_FIRST,
    "55P03": _TIMEOUT.format(setting="lock_timeout"),
    "57014": "the statement was cancelled, by statement_timeout if by nobody",
    "1205": _TIMEOUT.format(setting="innodb_lock_wait_timeout, or lock_wait_timeout for a table"),
    "1969": "the time for a statement ran out (max_statement_time)",
    "SQLITE_BUSY": "the database is locked, and the time to wait for it ran out (timeout in OPTIONS)",
    "SQLITE_LOCKED": "a table is locked by another connection of this process",
}
"""PostgreSQL's SQLSTATEs, the numbers of MySQL and MariaDB, and SQLite's names."""

_CHARSET = "it has a character that the {whose} can't hold"
_LONG = "it is too long for the column"
_JSON = "it is no JSON that this database can store"
_TRIGGER = "a trigger of the table refuses it"
_REFUSALS = {
    "22001": _LONG,
    "1406": _LONG,
    "54000": "it is longer than the database can take",
    "22P05": _CHARSET.format(whose="database's encoding, or its JSON,"),
    "22021": _CHARSET.format(whose="database's encoding"),
    "1366": _CHARSET.format(whose="column's character set"),
    "1977": _CHARSET.format(whose="column's character set"),
    "3988": _CHARSET.format(whose="column's character set"),
    "22P02": _JSON,
    "22003": "it has a number that the database can't hold",
    "3140": _JSON,
    "4025": "a check constraint of the table refuses it",
    "3819": "a check constraint of the table refuses it",
    "23514": "a check constraint of the table refuses it",
    "SQLITE_CONSTRAINT_CHECK": "a check constraint of the table refuses it",
    "P0001": _TRIGGER,
    "1644": _TRIGGER,
    "SQLITE_CONSTRAINT_TRIGGER": _TRIGGER,
    "23505": "another row holds the same value, and the column is unique",
    "1062": "another row holds the same value, and the column is unique",
    "SQLITE_CONSTRAINT_UNIQUE": "another row holds the same value, and the column is unique",
    "SQLITE_TOOBIG": "it is longer than the database can take",
}


class NotKeptError(DataError):
    """The database holds another value than it was given, or would. The message is ours, and shows none."""


def code_of(error: DatabaseError) -> str:
    """Return the code that a database gave an error, or an empty text."""
    cause = error.__cause__
    if code := getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None):
        return str(code)
    return str(error.args[0]) if error.args and isinstance(error.args[0], int) else ""


def lock_of(error: DatabaseError) -> str:
    """Return whom a database has waited or given way for, so that the transaction may be done again, or nothing."""
    code = code_of(error)
    return _LOCKS.get("_".join(code.split("_")[:2]), "")  # SQLite has a name for each kind of SQLITE_BUSY.


def refusal_of(error: DatabaseError) -> str:
    """Return why a database refuses a value, or nothing if it is not the value that the error is about."""
    if isinstance(error, NotKeptError):
        return str(error)
    if known := _REFUSALS.get(code_of(error)):
        return known
    return f"the database refuses it ({name_of(error)})" if isinstance(error, DataError | IntegrityError) else ""


def reason_of(error: DatabaseError) -> str:
    """Return what can be told of any error."""
    return lock_of(error) or refusal_of(error) or f"the database failed ({name_of(error)})"


def name_of(error: DatabaseError) -> str:
    """Return an error's class and code."""
    return f"{type(error).__name__} {code_of(error)}".strip()
