"""Compare-and-swap of many column values at once."""

from __future__ import annotations

from typing import Any

import msgspec

from django_asherah.lifecycle.columns import Column

Swap = tuple[Any, Any, Any]
"""Primary key, the raw value that was read, the raw value to put in its place."""


def swap_values(connection: Any, column: Column, swaps: list[Swap]) -> list[Any]:
    """Replace each value that still is what was read, byte for byte; return the primary keys of the others.

    The caller has begun a transaction. None of the new values may be in the table yet.
    """
    if connection.vendor == "postgresql":
        return _swap_on_postgresql(connection, column, swaps)
    table, name = _quoted(connection, column.model._meta.db_table, column.field.column)
    keys = _key_fields(column)
    # MySQL compares text by its collation, for which records that differ in case alone are the same.
    on_mysql = connection.vendor == "mysql"
    value = "_binary %s" if on_mysql and column.field.format.is_binary else "%s"
    old = f"BINARY {name} = BINARY {value}" if on_mysql else f"{name} = {value}"
    same_row = " AND ".join(f"{key} = %s" for key in _quoted(connection, *(field.column for field in keys)))
    with connection.cursor() as cursor:
        cursor.executemany(
            f"UPDATE {table} SET {name} = {value} WHERE {same_row} AND {old}",
            [(after, *_key_values(connection, keys, pk), before) for pk, before, after in swaps],
        )
        if cursor.rowcount == len(swaps):
            return []
    # Who lost is seen by reading again: this transaction holds every row that it has changed.
    standing = dict(column.at([pk for pk, _, _ in swaps]))
    return [pk for pk, _, after in swaps if standing.get(pk) != after]


def _swap_on_postgresql(connection: Any, column: Column, swaps: list[Swap]) -> list[Any]:
    table, name = _quoted(connection, column.model._meta.db_table, column.field.column)
    keys = _key_fields(column)
    columns = _quoted(connection, *(field.column for field in keys))
    same_row = " AND ".join(f"t.{key} = v.k{place}" for place, key in enumerate(columns))
    types = [f"k{place} {field.rel_db_type(connection)}" for place, field in enumerate(keys)]
    value_type = column.field.db_type(connection)
    rows = [
        {"place": place, "old": _text(before), "new": _text(after)}
        | {f"k{number}": key for number, key in enumerate(_key_values(connection, keys, pk))}
        for place, (pk, before, after) in enumerate(swaps)
    ]
    with connection.cursor() as cursor:
        # One parameter: drivers take longer to fill in thousands than PostgreSQL takes to read them.
        cursor.execute(
            f"UPDATE {table} AS t SET {name} = v.new FROM json_to_recordset(%s::json) AS v "
            f"(place int, {', '.join(types)}, old {value_type}, new {value_type}) "
            f"WHERE {same_row} AND t.{name} = v.old RETURNING v.place",
            [msgspec.json.encode(rows, enc_hook=_plain).decode()],
        )
        done = {place for (place,) in cursor.fetchall()}
    return [pk for place, (pk, _, _) in enumerate(swaps) if place not in done]


def _plain(value: Any) -> Any:
    """Return a key that Django has wrapped for its driver, such as psycopg's ``Int4``, as JSON can hold it."""
    return int(value) if isinstance(value, int) else str(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else f"\\x{bytes(value).hex()}"


def _quoted(connection: Any, *names: str | None) -> list[str]:
    return [connection.ops.quote_name(name) for name in names]


def _key_fields(column: Column) -> list[Any]:
    pk: Any = column.model._meta.pk
    return list(getattr(pk, "fields", None) or [pk])


def _key_values(connection: Any, keys: list[Any], pk: Any) -> list[Any]:
    values = pk if len(keys) > 1 else [pk]
    return [field.get_db_prep_value(value, connection) for field, value in zip(keys, values, strict=True)]
