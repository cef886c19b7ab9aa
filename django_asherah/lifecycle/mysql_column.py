"""What MySQL and MariaDB say of a column."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from typing import Any

from django.db import models
from msgspec import Struct

from django_asherah.lifecycle.columns import Column

_REST_OF_STATEMENT = 2000
"""Bytes that a statement has beside its values: the names of a table and of its columns, at most 64 characters each."""


class MySQLColumn(Struct, frozen=True):
    """A column as it is, whatever the model says.

    Attributes:
        max_packet: how long a statement may be, in bytes (``max_allowed_packet``).
        charset: its character set; None if it holds bytes.
        collation: its collation; None if it holds bytes.
        type: the name of its type, such as ``longtext``.
    """

    max_packet: int
    charset: str | None
    collation: str | None
    type: str | None


def describe_column(connection: Any, column: Column) -> MySQLColumn:
    """Return what the database says of a column."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT @@max_allowed_packet, character_set_name, collation_name, data_type "
            "FROM (SELECT 1) AS one LEFT JOIN information_schema.columns "
            "ON table_schema = DATABASE() AND table_name = %s AND column_name = %s",
            [column.model._meta.db_table, column.field.column],
        )
        return MySQLColumn(*cursor.fetchone())


def excess_of(connection: Any, parameters: Iterable[Any], max_packet: int) -> str:
    """Return why a statement with these parameters is too long, or nothing.

    The server would end the connection for it, so nobody could tell which value it was.
    """
    texts = [value for value in parameters if isinstance(value, str | bytes)]
    # No character has more than 4 bytes, and one that is escaped has 2.
    if 4 * sum(map(len, texts)) + _REST_OF_STATEMENT < max_packet:
        return ""
    size = sum(len(connection.connection.literal(text)) for text in texts) + _REST_OF_STATEMENT
    return f"its statement has {size} bytes, and max_allowed_packet is {max_packet}" if size > max_packet else ""


def charset_of(connection: Any, collation: str) -> str | None:
    """Return the character set of a collation; None if it is one of several."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT character_set_name FROM information_schema.collation_character_set_applicability "
            "WHERE collation_name = %s",
            [collation],
        )
        found = cursor.fetchall()
    return str(found[0][0]) if len(found) == 1 else None


def in_own_collation(connection: Any, column: Column, field: models.Field[Any, Any]) -> models.Field[Any, Any]:
    """Return the field that a column is changed to, in the collation that the column has now.

    Django gives it the table's default one, whose character set may not hold the column's values.
    """
    if connection.vendor != "mysql" or field.db_type(connection) == "json":
        return field
    parameters = field.db_parameters(connection)
    own = describe_column(connection, column).collation
    if own is None or parameters.get("collation"):
        return field
    same = copy(field)
    vars(same)["db_parameters"] = lambda connection: {**parameters, "collation": own}
    return same
