"""Compare-and-swap of many column values at once.

What is compared is the value and, where the row says the value's partition, the columns that say it: nothing that was
sealed for one tenant gets into a row that is another's by now.
"""

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
        place: what the columns held that say its partition.
    """

    pk: Any
    before: Any
    after: Any
    place: tuple[Any, ...] = ()

    def __repr__(self) -> str:
        return f"<Swap {self.pk}>"


def swap_values(connection: Any, column: Column, swaps: list[Swap]) -> list[Any]:
    """Replace each value that still is what was read, byte for byte, in a row that still says the same partition.

    The caller has begun a transaction. None of the new values may be in the table yet.

    Returns:
        The primary keys of the others.
    """
    moved = _moved(column, swaps)
    swaps = [swap for swap in swaps if swap.pk not in moved]
    swap_here = _swap_on_postgresql if connection.vendor == "postgresql" else _swap_one_by_one
    return [*moved, *(swap_here(connection, column, swaps) if swaps else ())]


def _moved(column: Column, swaps: list[Swap]) -> set[Any]:
    """Return the rows whose partition is another by now, and hold the others, if a parent's table has a part of it.

    No statement compares what stands in two tables without a gap. What SQLite has read in a transaction stays so.
    """
    if all(field.model is column.model for field in column.field.partition_fields):
        return set()
    places = {row.pk: row.place for row in column.at([swap.pk for swap in swaps], lock=True)}
    return {swap.pk for swap in swaps if places.get(swap.pk) != swap.place}


def _swap_one_by_one(connection: Any, column: Column, swaps: list[Swap]) -> list[Any]:
    table, name = _quoted(connection, column.model._meta.db_table, column.field.column)
    keys = _key_fields(column)
    # MySQL compares text by its collation, for which records that differ in case alone are the same.
    on_mysql = connection.vendor == "mysql"
    value = "_binary %s" if on_mysql and column.field.format.is_binary else "%s"
    old = f"BINARY {name} = BINARY {value}" if on_mysql else f"{name} = {value}"
    same_row = " AND ".join(f"{key} = %s" for key in _quoted(connection, *(field.column for field in keys)))
    places = _place_fields(column)
    same_place = "".join(f" AND {_is_same(connection, field, swaps[0].place[at])}" for at, field in places.items())
    with connection.cursor() as cursor:
        cursor.executemany(
            f"UPDATE {table} SET {name} = {value} WHERE {same_row} AND {old}{same_place}",
            [
                (
                    swap.after,
                    *_key_values(connection, keys, swap.pk),
                    swap.before,
                    *_prepared(connection, places, swap.place),
                )
                for swap in swaps
            ],
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
    places = _place_fields(column)
    types += [f"p{at} {_comparable_type(connection, field)}" for at, field in places.items()]
    same_place = "".join(f" AND {_is_same_on_postgresql(connection, field, at)}" for at, field in places.items())
    value_type = column.field.db_type(connection)
    rows = [
        {"position": position, "old": _text(swap.before), "new": _text(swap.after)}
        | {f"k{number}": key for number, key in enumerate(_key_values(connection, keys, swap.pk))}
        | {f"p{at}": value for at, value in zip(places, _prepared(connection, places, swap.place), strict=True)}
        for position, swap in enumerate(swaps)
    ]
    with connection.cursor() as cursor:
        # One parameter: drivers take longer to fill in thousands than PostgreSQL takes to read them.
        cursor.execute(
            f"UPDATE {table} AS t SET {name} = v.new FROM json_to_recordset(%s::json) AS v "
            f"(position int, {', '.join(types)}, old {value_type}, new {value_type}) "
            f"WHERE {same_row} AND t.{name} = v.old{same_place} RETURNING v.position",
            [msgspec.json.encode(rows, enc_hook=_plain).decode()],
        )
        done = {position for (position,) in cursor.fetchall()}
    return [swap.pk for position, swap in enumerate(swaps) if position not in done]


def _place_fields(column: Column) -> dict[int, Any]:
    """Return the columns of the same table that say the partition, by where they stand in a row's place."""
    return {at: field for at, field in enumerate(column.field.partition_fields) if field.model is column.model}


def _prepared(connection: Any, fields: dict[int, Any], place: tuple[Any, ...]) -> list[Any]:
    return [field.get_db_prep_value(place[at], connection) for at, field in fields.items()]


def _is_same(connection: Any, field: Any, example: Any) -> str:
    """Return the condition that a column holds exactly a parameter: its collation may think less exactly of texts."""
    (name,) = _quoted(connection, field.column)
    if not isinstance(example, str):
        return f"{name} = %s"
    if connection.vendor == "mysql":
        return f"BINARY CONVERT({name} USING utf8mb4) = BINARY %s"
    return f"{name} = %s COLLATE BINARY"


def _is_same_on_postgresql(connection: Any, field: Any, at: int) -> str:
    (name,) = _quoted(connection, field.column)
    return f't.{name}::text = v.p{at} COLLATE "C"' if _is_text(connection, field) else f"t.{name} = v.p{at}"


def _comparable_type(connection: Any, field: Any) -> str:
    return "text" if _is_text(connection, field) else field.rel_db_type(connection)


def _is_text(connection: Any, field: Any) -> bool:
    return bool(field.rel_db_type(connection).startswith(("varchar", "text", "char", "citext")))


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
