"""Compare-and-swap of many column values at once."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from django_asherah.lifecycle.columns import Column

ROWS_PER_TRANSACTION = 500
"""Rows that are rewritten together: few enough that nobody waits long for one of them."""


class Swap(Struct, frozen=True, gc=False):
    """A value to replace.

    Attributes:
        pk: the primary key of its row.
        before: what the column held when it was read.
        after: what replaces it.
    """

    pk: Any
    before: Any
    after: Any

    def __repr__(self) -> str:
        return f"<Swap {self.pk}>"


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
            [(swap.after, *_key_values(connection, keys, swap.pk), swap.before) for swap in swaps],
        )
        if cursor.rowcount == len(swaps):
            return []
    # Who lost is seen by reading again: this transaction holds every row that it has changed.
    standing = {row.pk: row.raw for row in column.at([swap.pk for swap in swaps])}
    return [swap.pk for swap in swaps if standing.get(swap.pk) != swap.after]


def _swap_on_postgresql(connection: Any, column: Column, swaps: list[Swap]) -> list[Any]:
    table, name = _quoted(connection, column.model._meta.db_table, column.field.column)
    keys = _key_fields(column)
    columns = _quoted(connection, *(field.column for field in keys))
    same_row = " AND ".join(f"t.{key} = v.k{number}" for number, key in enumerate(columns))
    types = [f"k{number} {field.rel_db_type(connection)}" for number, field in enumerate(keys)]
    value_type = column.field.db_type(connection)
    rows = [
        {"position": position, "old": _text(swap.before), "new": _text(swap.after)}
        | {f"k{number}": key for number, key in enumerate(_key_values(connection, keys, swap.pk))}
        for position, swap in enumerate(swaps)
    ]
    with connection.cursor() as cursor:
        # One parameter: drivers take longer to fill in thousands than PostgreSQL takes to read them.
        cursor.execute(
            f"UPDATE {table} AS t SET {name} = v.new FROM json_to_recordset(%s::json) AS v "
            f"(position int, {', '.join(types)}, old {value_type}, new {value_type}) "
            f"WHERE {same_row} AND t.{name} = v.old RETURNING v.position",
            [msgspec.json.encode(rows, enc_hook=_plain).decode()],
        )
        done = {position for (position,) in cursor.fetchall()}
    return [swap.pk for position, swap in enumerate(swaps) if position not in done]


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
