"""Compare-and-swap of many column values at once.

What is compared is the value and, where the row says the value's partition, the columns that say it: nothing that was
sealed for one tenant gets into a row that is another's by now.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from django_asherah.fields.packets import find_excess
from django_asherah.lifecycle.columns import Column
from django_asherah.lifecycle.database_errors import NotKeptError
from django_asherah.lifecycle.mysql_column import describe_column
from django_asherah.lifecycle.quiet_cursor import quiet_cursor

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

    The caller has begun a transaction, and rolls it back if this raises. None of the new values may be in the table.

    Returns:
        The primary keys of the others.

    Raises:
        NotKeptError: the database has stored something else, or would end the connection.
        DatabaseError: it refuses a value. The error, and what hangs on it, may show the value.
    """
    moved = _moved(column, swaps)
    swaps = [swap for swap in swaps if swap.pk not in moved]
    if not swaps:
        return [*moved]
    swap_here = _swap_on_postgresql if connection.vendor == "postgresql" else _swap_one_by_one
    lost = swap_here(connection, column, swaps)
    _require_kept(connection, column, swaps, lost)
    return [*moved, *lost]


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
    exact = _exact_on_mysql(connection, column) if connection.vendor == "mysql" else _EXACT_ON_SQLITE
    same_row = " AND ".join(f"{key} = %s" for key in _quoted(connection, *(field.column for field in keys)))
    places = _place_fields(column)
    same_place = "".join(f" AND {_is_same(connection, field, swaps[0].place[at])}" for at, field in places.items())
    update = (
        f"UPDATE {table} SET {name} = {exact.value} WHERE {same_row} AND {exact.same.format(name=name)}{same_place}"
    )
    lost = []
    with quiet_cursor(connection) as cursor:
        for swap in swaps:
            place = _prepared(connection, places, swap.place)
            parameters = (swap.after, *_key_values(connection, keys, swap.pk), swap.before, *place)
            if excess := find_excess(connection, parameters):
                raise NotKeptError(excess)
            cursor.execute(update, parameters)
            if cursor.rowcount == 0:
                lost.append(swap.pk)
    return lost


class _Exact(Struct, frozen=True):
    """How a database is given a value, and compares one with what a column holds, byte for byte."""

    value: str
    same: str


# Neither the column's collation (NOCASE, RTRIM) nor its type's affinity has a say.
_EXACT_ON_SQLITE = _Exact("%s", "+{name} = %s COLLATE BINARY")


def _exact_on_mysql(connection: Any, column: Column) -> _Exact:
    """Compare in the column's own character set: what it does not give back as it was read is not the same."""
    described = describe_column(connection, column)
    if column.field.format.is_binary:
        return _Exact("_binary %s", "BINARY {name} = BINARY _binary %s")
    same = f"BINARY {{name}} = BINARY CONVERT(%s USING {described.charset})"
    return _Exact("%s", same)


def _require_kept(connection: Any, column: Column, swaps: list[Swap], lost: list[Any]) -> None:
    """Refuse what the database has changed: it pads and cuts, and has triggers and types of its own."""
    if connection.vendor == "postgresql":
        connection.check_constraints()  # It runs the triggers that would run when the transaction is committed.
    standing = {row.pk: row.raw for row in column.at([swap.pk for swap in swaps])}
    gone = set(lost)
    if any(standing.get(swap.pk) != swap.after for swap in swaps if swap.pk not in gone):
        raise NotKeptError("the database stores another value in its place")


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
    # The column may be of a collation, or of a type, for which texts that differ are the same (citext).
    held = f"t.{name}" if column.field.format.is_binary else f't.{name}::text COLLATE "C"'
    rows = [
        {"position": position, "old": _text(swap.before), "new": _text(swap.after)}
        | {f"k{number}": key for number, key in enumerate(_json_key_values(connection, keys, swap.pk))}
        | {f"p{at}": value for at, value in zip(places, _prepared(connection, places, swap.place), strict=True)}
        for position, swap in enumerate(swaps)
    ]
    with quiet_cursor(connection) as cursor:
        # One parameter: drivers take longer to fill in thousands than PostgreSQL takes to read them.
        cursor.execute(
            f"UPDATE {table} AS t SET {name} = v.new FROM json_to_recordset(%s::json) AS v "
            f"(position int, {', '.join(types)}, old {value_type}, new {value_type}) "
            f"WHERE {same_row} AND {held} = v.old{same_place} RETURNING v.position",
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
        return f"BINARY CONVERT({name} USING utf8mb4) = BINARY CONVERT(%s USING utf8mb4)"
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
    return [field.get_db_prep_value(part, connection) for field, part in _key_parts(keys, pk)]


def _json_key_values(connection: Any, keys: list[Any], pk: Any) -> list[Any]:
    """Return the key as PostgreSQL reads it from JSON: bytes are not in base64 there."""
    return [
        _text(part) if isinstance(part, bytes | bytearray | memoryview) else field.get_db_prep_value(part, connection)
        for field, part in _key_parts(keys, pk)
    ]


def _key_parts(keys: list[Any], pk: Any) -> list[tuple[Any, Any]]:
    """Return the fields of the primary key, each with its part of ``pk``."""
    return list(zip(keys, pk if len(keys) > 1 else [pk], strict=True))
