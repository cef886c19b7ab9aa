"""Checks of the key table, with ``check --database``."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as CheckWarning
from django.db import Error as DatabaseFailure
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from django_asherah.checks.collisions import check_collisions
from django_asherah.checks.sessions import check_zone
from django_asherah.conf import Settings, find_problems, get_settings
from django_asherah.envelope.records import MAX_KEY_ID_LENGTH

_TABLE = "encryption_key"
_TYPES = {
    "id": ("varchar", "character varying", "text"),
    "created": ("timestamp", "datetime"),
    "key_record": ("text", "mediumtext", "longtext", "json"),
}
_TROUBLE_FOR_OTHERS = {
    ("postgresql", "created", "timestamp without time zone"): (
        "SDKs in sessions of different time zones lose each other's keys",
        "timestamptz",
    ),
    ("postgresql", "key_record", "text"): ("the Rust SDK can't insert into it", "jsonb"),
}
_VENDORS = ("postgresql", "mysql", "sqlite")
# Django's introspection does not tell timestamp from timestamptz, char from varchar, blob from text, nor utf8mb3 from
# utf8mb4 where that is the table's default. On SQLite it gives the type as it was declared.
_COLUMNS = {
    "postgresql": """
        SELECT attname, format_type(atttypid, atttypmod), NULL FROM pg_attribute
        WHERE attrelid = to_regclass('encryption_key') AND attnum > 0 AND NOT attisdropped""",
    "mysql": """
        SELECT column_name, column_type, character_set_name FROM information_schema.columns
        WHERE table_schema = DATABASE() AND table_name = 'encryption_key'""",
}
# Django's introspection does not tell a partial index from a whole one, which MySQL has not, nor on PostgreSQL the
# columns that an index is unique over from those that it only includes.
_UNIQUE = {
    "postgresql": """
        SELECT indexrelid, attname FROM pg_index JOIN pg_attribute
        ON attrelid = indrelid AND attnum = ANY ((indkey::int2[])[0:indnkeyatts - 1])
        WHERE indrelid = to_regclass('encryption_key') AND indisunique AND indpred IS NULL""",
    "sqlite": """
        SELECT indexes.name, columns.name
        FROM pragma_index_list('encryption_key') indexes, pragma_index_info(indexes.name) columns
        WHERE indexes."unique" AND NOT indexes.partial""",
}
# The union takes its collation from the column, so this compares as the column does.
_COMPARE = """
    SELECT COUNT(*) FROM (SELECT id FROM encryption_key WHERE 1 = 0 UNION ALL SELECT 'a' UNION ALL SELECT 'é') x
    WHERE id IN ('A', 'É', 'e')"""


@register(Tags.database)
def check_key_table(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Report what is wrong with the key table, wherever it came from."""
    if any(find_problems()):
        return []
    settings = get_settings()
    alias = settings.metastore_provider.find_database(settings)
    if alias is None or alias not in (databases or ()):
        return []
    connection = connections[alias]
    if connection.vendor not in _VENDORS:
        hint = "Use PostgreSQL, MySQL, MariaDB or SQLite."
        return [_error("E030", connection, f"can't be read: it is in {connection.display_name}.", hint)]
    try:
        return list(_check_table(connection, settings))
    except DatabaseFailure as exc:
        reason = str(exc).partition("\n")[0]
        return [_error("E030", connection, f"can't be read: {reason}", "Fix the connection or the permissions.")]


def _check_table(connection: BaseDatabaseWrapper, settings: Settings) -> Iterator[CheckMessage]:
    tables = connection.introspection.table_names()
    if _TABLE not in tables:
        yield from _check_missing(connection, tables)
        return
    columns = _read_columns(connection)
    for name in sorted(_TYPES.keys() - columns.keys()):
        yield _error("E031", connection, f"has no column {name!r}.", "Is it another application's table?")
    if not _TYPES.keys() <= columns.keys():
        return
    wrong = [message for name in _TYPES for message in _check_type(connection, name, columns[name][0])]
    yield from wrong
    if not wrong:
        yield from _check_collation(connection, columns["id"][1])
        yield from _check_uniqueness(connection)
        yield from check_collisions(connection, _place(connection), settings)
    for name in _TYPES:
        yield from _check_other_sdks(connection, name, columns[name][0])
    if connection.vendor == "mysql" and columns["created"][0].startswith("timestamp"):
        yield from check_zone(connection, _place(connection))
    if "row_id" not in columns and apps.is_installed("django.contrib.admin"):
        yield CheckWarning(
            f"{_place(connection)} has no column 'row_id', so the admin can't show the keys.",
            hint="Add the column, as the documentation says under 'Adopt an Asherah table', or silence this.",
            id="asherah.W032",
        )


def _read_columns(connection: BaseDatabaseWrapper) -> dict[str, tuple[str, str | None]]:
    """Return each column's type as it was declared, and its character set where the database has several."""
    statement = _COLUMNS.get(connection.vendor)
    with connection.cursor() as cursor:
        if statement is None:
            columns = connection.introspection.get_table_description(cursor, _TABLE)
            return {column.name: (column.type_code.lower(), None) for column in columns}
        cursor.execute(statement)
        return {name: (type.lower(), charset) for name, type, charset in cursor.fetchall()}


def _read_unique(connection: BaseDatabaseWrapper) -> list[set[str]]:
    """Return the columns of each index over which every row is unique."""
    statement = _UNIQUE.get(connection.vendor)
    with connection.cursor() as cursor:
        if statement is None:
            constraints = connection.introspection.get_constraints(cursor, _TABLE)
            return [set(each["columns"]) for each in constraints.values() if each["unique"]]
        cursor.execute(statement)
        unique = defaultdict(set)
        for index, column in cursor.fetchall():
            unique[index].add(column)
        return list(unique.values())


def _check_missing(connection: BaseDatabaseWrapper, tables: list[str]) -> Iterator[CheckMessage]:
    # A warning, and none at all before the first migration: `migrate` runs this check, and is what helps.
    if "django_migrations" in tables:
        yield CheckWarning(
            f"{_place(connection)} is missing.",
            hint=f"Run manage.py migrate --database {connection.alias}.",
            id="asherah.W031",
        )


def _check_type(connection: BaseDatabaseWrapper, name: str, type: str) -> Iterator[CheckMessage]:
    length = re.search(r"\((\d+)\)", type)
    if not type.startswith(_TYPES[name]):
        hint = f"It must be one of: {', '.join(_TYPES[name])}."
    elif name == "id" and length and int(length[1]) < MAX_KEY_ID_LENGTH:
        hint = f"Make it hold {MAX_KEY_ID_LENGTH} characters."
    else:
        return
    yield _error("E032", connection, f"has a column {name!r} of type {type}.", hint)


def _check_other_sdks(connection: BaseDatabaseWrapper, name: str, type: str) -> Iterator[CheckMessage]:
    trouble = _TROUBLE_FOR_OTHERS.get((connection.vendor, name, type))
    if trouble is not None:
        yield CheckWarning(
            f"{_place(connection)} has a column {name!r} of type {type}: {trouble[0]}.",
            hint=f"Change it to {trouble[1]}, or silence this if no other SDK uses the table.",
            id="asherah.W030",
        )


def _check_collation(connection: BaseDatabaseWrapper, charset: str | None) -> Iterator[CheckMessage]:
    with connection.cursor() as cursor:
        cursor.execute(_COMPARE)
        folds = cursor.fetchone()[0] > 0
    if folds or charset not in (None, "utf8mb4"):
        yield _error(
            "E033",
            connection,
            "does not compare 'id' byte for byte in Unicode, so that different partitions may share a key.",
            "Give the column a binary collation: utf8mb4_bin on MySQL and MariaDB, BINARY on SQLite, a deterministic "
            "one on PostgreSQL.",
        )


def _check_uniqueness(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    if {"id", "created"} not in _read_unique(connection):
        yield _error(
            "E034",
            connection,
            "has no unique constraint on (id, created), so that processes that race make two keys of one name.",
            "Add one, or make them the primary key.",
        )


def _error(id: str, connection: BaseDatabaseWrapper, what: str, hint: str) -> CheckMessage:
    return Error(f"{_place(connection)} {what}", hint=hint, id=f"asherah.{id}")


def _place(connection: BaseDatabaseWrapper) -> str:
    return f"The key table 'encryption_key' of database {connection.alias!r}"
