"""What every statement on the ``encryption_key`` table needs, whatever the database.

Only the three columns that every official SDK knows are ever touched, so a table that an SDK's own DDL made serves as
well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core.exceptions import SynchronousOnlyOperation
from django.db import Error as DatabaseFailure
from django.db import ProgrammingError
from django.db.backends.base.base import BaseDatabaseWrapper

from django_asherah.envelope.records import KeyMeta
from django_asherah.exceptions import MetastoreError
from django_asherah.metastores.shifts import NO_TIME, shifted_range

IS_KEY = "(id = %s AND created = %s)"
MAY_BE_KEY = "(id = %s AND created BETWEEN %s AND %s)"
ROW = "(%s, %s, %s)"
INSERT = f"INSERT INTO encryption_key (id, created, key_record) VALUES {ROW}"

_RECORD_TEXT = {
    "postgresql": "CAST(key_record AS text)",
    "sqlite": "CAST(key_record AS blob)",
    "mysql": "CAST(CONVERT(key_record USING utf8mb4) AS BINARY)",
}

_STORED_CREATED = {
    "postgresql": f"CASE WHEN isfinite(created) THEN CAST(EXTRACT(epoch FROM created) AS bigint) ELSE {NO_TIME} END",
    "sqlite": "CASE created WHEN strftime('%%Y-%%m-%%d %%H:%%M:%%S', created) THEN "
    f"CAST(strftime('%%s', created) AS integer) ELSE {NO_TIME} END",
    "mysql": f"COALESCE(TIMESTAMPDIFF(SECOND, '1970-01-01', created), {NO_TIME})",
}
# SQLite's sessions have no time zones. Elsewhere, 26 hours before the first time that there is are an error or NULL.
_SHIFTED_LATEST = {
    "postgresql": "GREATEST(MAX({created}), '0001-01-02') - INTERVAL '26 hours'",
    "mysql": "COALESCE(MAX({created}) - INTERVAL 26 HOUR, MAX({created}))",
}


# SQLite's columns hold anything: only text in the very form of a time is one.
_LOADABLE = {
    "postgresql": "CASE WHEN {column} >= '0001-01-02' AND {column} < '9999-12-31' THEN {column} END",
    "mysql": "CASE WHEN TIMESTAMPDIFF(SECOND, '0001-01-02', {column}) >= 0 AND {column} < '9999-12-31' "
    "THEN {column} END",
    "sqlite": "CASE WHEN typeof({column}) = 'text' AND {column} >= '0001-01-02' AND {column} < '9999-12-31' AND "
    "substr({column}, 1, 19) = strftime('%%Y-%%m-%%d %%H:%%M:%%S', {column}) THEN {column} END",
}
_CONTAINS = {
    "postgresql": f"strpos({{text}}, {{member}} || {_STORED_CREATED['postgresql']}) > 0",
    "mysql": f"LOCATE(CONCAT({{member}}, {_STORED_CREATED['mysql']}), {{text}}) > 0",
    "sqlite": f"instr({{text}}, {{member}} || {_STORED_CREATED['sqlite']}) > 0",
}


def record_text(vendor: str) -> str:
    """Return the SQL for a record's text as it is stored, in UTF-8, whatever the column's type and character set.

    Bytes on SQLite, which would put text that is not UTF-8 into its error message, and on MySQL, whose collations would
    take two records for the same. On PostgreSQL text: psycopg would parse json.
    """
    return _RECORD_TEXT.get(vendor, "key_record")


def in_utc(connection: BaseDatabaseWrapper, statement: str, *, writes: bool = False) -> str:
    """Return ``statement`` as one that runs in UTC, and leaves the session as it is.

    MySQL and MariaDB read and write a ``TIMESTAMP`` in the session's time zone. What writes is strict, too: otherwise
    they cut off what a column can't hold. Source: MariaDB's ``SET STATEMENT``, and the hint ``SET_VAR`` of MySQL 8.0.
    """
    if connection.vendor != "mysql":
        return statement
    if cast(Any, connection).mysql_is_mariadb:
        strict = ", sql_mode = 'STRICT_ALL_TABLES'" if writes else ""
        return f"SET STATEMENT time_zone = '+00:00'{strict} FOR {statement}"
    strict = " SET_VAR(sql_mode = 'STRICT_ALL_TABLES')" if writes else ""
    verb, rest = statement.split(maxsplit=1)
    return f"{verb} /*+ SET_VAR(time_zone = '+00:00'){strict} */ {rest}"


@contextmanager
def keys_in_utc(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Let what Django's ORM reads from the key table in this block be read in UTC."""

    def send(execute: Any, statement: str, parameters: Any, many: bool, context: Any) -> Any:
        if "encryption_key" in statement and statement.startswith("SELECT"):
            statement = in_utc(connection, statement)
        return execute(statement, parameters, many, context)

    with connection.execute_wrapper(send):
        yield


def stored_created(vendor: str) -> str:
    """Return the SQL for the column ``created`` as UTC in Unix seconds; on MySQL, within :func:`in_utc`.

    :data:`NO_TIME` for what is no time, and on SQLite for what is written in another form than :func:`created_literal`,
    which does not find it.
    """
    return _STORED_CREATED[vendor]


def loadable_created(vendor: str, column: str) -> str:
    """Return the SQL for a column ``created`` where it is a time that Python has in any zone, or NULL."""
    return _LOADABLE[vendor].format(column=column)


def says_its_time(vendor: str) -> str:
    """Return the SQL condition for rows whose record seems to say what their column does: most of those that do.

    The database looks at the record's text, as :func:`may_be_child` does.
    """
    text = "CAST(key_record AS text)" if vendor == "sqlite" else record_text(vendor)
    return " OR ".join(_CONTAINS[vendor].format(text=text, member=f"'\"Created\":{space}'") for space in ("", " "))


def shifted_latest(vendor: str, created: str) -> str:
    """Return the SQL for the last of ``created`` less what a newer key's may be earlier (``MAX_SHIFT``)."""
    return _SHIFTED_LATEST.get(vendor, "MAX({created})").format(created=created)


def has_zones(vendor: str) -> bool:
    """Tell whether sessions have time zones."""
    return vendor != "sqlite"


def may_be_child(vendor: str) -> str:
    """Return the SQL condition for rows that may name a parent; its parameter is :func:`child_pattern`.

    The database looks at the record's text: parsing JSON, it would stumble over a record that is broken.
    """
    text = "CAST(key_record AS text)" if vendor == "sqlite" else record_text(vendor)
    return f"{text} LIKE %s"


def child_pattern(parent: KeyMeta) -> str:
    """Return what the records of all keys under ``parent`` look like, and perhaps some others."""
    return f'%"ParentKeyMeta"%"Created":%{parent.created}%'


def created_literal(connection: BaseDatabaseWrapper, created: int) -> str:
    """Return a key's creation time (Unix seconds) as the literal that finds it in any of our tables.

    Not a typed parameter: the column's type shall read it. UTC wall-clock time is what the SDKs send; with its
    offset, PostgreSQL reads it right in any session's zone, and a column without zone ignores the offset.
    """
    offset = "+00" if connection.vendor == "postgresql" else ""
    return f"{datetime.fromtimestamp(created, UTC):%Y-%m-%d %H:%M:%S}{offset}"


def created_range(connection: BaseDatabaseWrapper, created: int) -> tuple[str, str]:
    """Return the literals between which all rows are whose record may say this time (Unix seconds)."""
    first, last = shifted_range(created)
    return created_literal(connection, first), created_literal(connection, last)


def created_value(connection: BaseDatabaseWrapper, created: int) -> datetime:
    """Return a key's creation time (Unix seconds) as Django's ORM reads and writes the column."""
    moment = datetime.fromtimestamp(created, UTC)
    if settings.USE_TZ:
        return moment
    if connection.vendor == "postgresql":
        moment = moment.astimezone(ZoneInfo(connection.timezone_name))
    return moment.replace(tzinfo=None)


@contextmanager
def failures_translated(alias: str) -> Iterator[None]:
    """Turn what Django's database layer raises in the block into ``MetastoreError``.

    Raises:
        SynchronousOnlyOperation: an event loop runs in this thread; the message says what to call there.
    """
    try:
        yield
    except SynchronousOnlyOperation as exc:
        raise SynchronousOnlyOperation(
            f"a key has yet to be loaded from database {alias!r}, and Django refuses that where an event loop runs: "
            "call 'await session.aencrypt(payload)' or 'await session.adecrypt(record)', or use sync_to_async()"
        ) from exc
    except DatabaseFailure as exc:
        reason = str(exc).partition("\n")[0]
        table = f"the key table 'encryption_key' of database {alias!r}"
        advice = _advice(alias, exc, reason)
        raise MetastoreError(f"{table} failed: {type(exc).__name__}: {reason}{advice}") from exc


def _advice(alias: str, exc: DatabaseFailure, reason: str) -> str:
    if isinstance(exc, ProgrammingError) or reason.startswith("no such table"):
        return f". Is the database migrated? 'manage.py check --database {alias}' says what is wrong with the table"
    return ""
