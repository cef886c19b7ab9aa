"""An encrypted column in a query: what a row holds becomes a value only where it doesn't go into an instance.

A column goes into an instance, and stays sealed, where the query selects a model's own columns; in ``values()`` and as
an annotation it is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db.models.expressions import Col

from django_asherah.exceptions import AsherahError
from django_asherah.fields.guards import refuse_misuse
from django_asherah.fields.sealed import SealedValue, are_lasting
from django_asherah.fields.sealing import load_keys


class EncryptedCol(Col):
    """An encrypted column in a query. No two queries share one.

    Attributes:
        is_opened: whether its values go somewhere else than into an instance.
    """

    target: Any
    is_opened = False

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        """Compile the column.

        Raises:
            FieldError: the query wants the database to understand what is in it.
        """
        refuse_misuse(compiler)
        return super().as_sql(compiler, connection)

    def select_format(self, compiler: Any, sql: str, params: Any) -> Any:
        """Find out where the selected values go."""
        query = compiler.query
        self.is_opened = not query.default_cols or any(self is each for each in query.annotations.values())
        return super().select_format(compiler, sql, params)

    def get_db_converters(self, connection: Any) -> list[Callable[..., Any]]:
        """Return what makes of the column's value what the query yields."""
        if self.is_opened:
            return super().get_db_converters(connection)
        return [_seal_off]


def _seal_off(value: Any, column: EncryptedCol, connection: Any) -> Any:
    """Return a record of ``raw()`` or of ``RETURNING``: no query was compiled for it, and it goes into an instance."""
    if value is None or value.__class__ is SealedValue:
        return value
    field, record = column.target, bytes(value) if isinstance(value, memoryview) else value
    with suppress(AsherahError, ImproperlyConfigured):
        keys = load_keys([field.find_key(record)])
        return SealedValue(record, field.found_with(keys, is_lasting=are_lasting(keys)))
    return SealedValue(record)
