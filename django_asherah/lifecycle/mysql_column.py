"""What MySQL and MariaDB say of a column."""

from __future__ import annotations

from copy import copy
from typing import Any

from django.db import models
from msgspec import Struct

from django_asherah.lifecycle.columns import Column


class MySQLColumn(Struct, frozen=True):
    """A column as it is, whatever the model says.

    Attributes:
        charset: its character set, such as ``utf8mb4``; ``binary`` if it holds bytes.
        collation: its collation.
    """

    charset: str
    collation: str


def describe_column(connection: Any, column: Column) -> MySQLColumn:
    """Return what the database says of a column."""
    table, name = map(connection.ops.quote_name, (column.model._meta.db_table, column.field.column))
    with connection.cursor() as cursor:
        # No row is read. The information schema would be slower, and knows no table of another database by its name.
        cursor.execute(
            f"SELECT CHARSET(t.{name}), COLLATION(t.{name}) FROM (SELECT 1) AS one LEFT JOIN {table} AS t ON FALSE"
        )
        return MySQLColumn(*cursor.fetchone())


def is_json(connection: Any, column: Column) -> bool:
    """Tell whether a column is of MySQL's type for documents; MariaDB's is text."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = %s "
            "AND column_name = %s AND data_type = 'json'",
            [column.model._meta.db_table, column.field.column],
        )
        return bool(cursor.fetchone()[0])


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
    if own == "binary" or parameters.get("collation"):
        return field
    same = copy(field)
    vars(same)["db_parameters"] = lambda connection: {**parameters, "collation": own}
    return same
