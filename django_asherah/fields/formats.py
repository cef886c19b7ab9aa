"""The record formats of a field: what stands in its column, and what kind of column that is."""

from __future__ import annotations

from typing import Any

from django.db import models

from django_asherah.envelope.compact import is_compact
from django_asherah.envelope.session import Session


class RecordFormat:
    """Data row records as JSON text, which every Asherah SDK reads."""

    column: models.Field[Any, Any] = models.TextField()
    """A field of the kind of column that holds such records."""

    is_binary = False

    def seal(self, session: Session, payload: bytes) -> str | bytes:
        """Return ``payload`` as a new record."""
        return session.encrypt(payload)

    def wrote(self, raw: Any) -> bool:
        """Tell whether a column value that is a record is in this format."""
        return isinstance(raw, str)


class _RawBytes(models.BinaryField):
    """Reads a binary column as bytes, where some database adapters give a memoryview."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return bytes(value) if isinstance(value, memoryview) else value


class _JSONInBinary(RecordFormat):
    """The same JSON in a binary column, on the way from the compact format back to a text column."""

    column = _RawBytes()
    is_binary = True

    def seal(self, session: Session, payload: bytes) -> bytes:
        return session.encrypt(payload).encode()

    def wrote(self, raw: Any) -> bool:
        return not is_compact(raw)


class _Compact(_JSONInBinary):
    """Compact records, which are half as long and which only this app reads."""

    def seal(self, session: Session, payload: bytes) -> bytes:
        return session.encrypt_compact(payload)

    def wrote(self, raw: Any) -> bool:
        return is_compact(raw)


FORMATS = {"json": RecordFormat(), "compact": _Compact(), "json-binary": _JSONInBinary()}
"""By the name that a field's ``record_format`` has."""


def get_placeholder(field: Any, value: Any, compiler: Any, connection: Any) -> str:
    """Return what stands for ``value`` in a statement: MySQL takes bytes for text unless they are marked.

    That a field has such a method at all also keeps PostgreSQL from inserting many rows as arrays. Records are full of
    quotation marks and backslashes then, each of which is escaped once more: that takes twice as long.
    """
    return "_binary %s" if value.__class__ is bytes and connection.vendor == "mysql" else "%s"


def get_placeholder_sql(field: Any, value: Any, compiler: Any, connection: Any) -> tuple[str, Any]:
    """Return what stands for ``value`` in a statement, and its parameters, as Django 6.1 asks for them."""
    if hasattr(value, "as_sql"):
        sql, parameters = compiler.compile(value)
        return sql, parameters
    return get_placeholder(field, value, compiler, connection), (value,)
