"""The record formats of a field: what its column holds, and what kind of column that is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from django.db import models

from django_asherah.envelope.compact import is_compact
from django_asherah.envelope.keys import CryptoKey
from django_asherah.envelope.session import Session


class RecordFormat(ABC):
    """One way to write records into a column.

    Attributes:
        name: what a field's ``record_format`` calls it.
        column: a plain field of the kind of column that holds such records. It reads them as they are.
        is_binary: whether that column holds bytes.
    """

    name: ClassVar[str]
    column: ClassVar[models.Field[Any, Any]]
    is_binary: ClassVar[bool]

    @abstractmethod
    def seal(self, session: Session, payload: bytes, key: CryptoKey | None = None) -> str | bytes:
        """Return ``payload`` as a new record, under ``key`` or the session's newest."""

    @abstractmethod
    def is_own(self, record: str | bytes) -> bool:
        """Tell whether a record is in this format."""


class _RawBytes(models.BinaryField):
    """Reads a binary column as bytes, where some database adapters give a memoryview."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return bytes(value) if isinstance(value, memoryview) else value


class Json(RecordFormat):
    """Data row records as JSON text, which every Asherah SDK reads."""

    name = "json"
    column = models.TextField()
    is_binary = False

    def seal(self, session: Session, payload: bytes, key: CryptoKey | None = None) -> str:
        """Return ``payload`` as JSON text."""
        return session.encrypt(payload, key)

    def is_own(self, record: str | bytes) -> bool:
        """Tell whether a record is text."""
        return isinstance(record, str)


class JsonInBinary(RecordFormat):
    """The same JSON in a binary column, on the way from the compact format back to a text column."""

    name = "json-binary"
    column = _RawBytes()
    is_binary = True

    def seal(self, session: Session, payload: bytes, key: CryptoKey | None = None) -> bytes:
        """Return ``payload`` as JSON in UTF-8."""
        return session.encrypt(payload, key).encode()

    def is_own(self, record: str | bytes) -> bool:
        """Tell whether a record of a binary column is JSON."""
        return not is_compact(record)


class Compact(RecordFormat):
    """Compact records, which are half as long and which only this app reads."""

    name = "compact"
    column = _RawBytes()
    is_binary = True

    def seal(self, session: Session, payload: bytes, key: CryptoKey | None = None) -> bytes:
        """Return ``payload`` as a compact record."""
        return session.encrypt_compact(payload, key)

    def is_own(self, record: str | bytes) -> bool:
        """Tell whether a record of a binary column is compact."""
        return is_compact(record)


FORMATS: dict[str, RecordFormat] = {format.name: format for format in (Json(), Compact(), JsonInBinary())}
"""By the name that a field's ``record_format`` has."""


def get_placeholder(value: Any, connection: Any) -> str:
    """Return what stands for a record in a statement: MySQL takes bytes for text unless they are marked.

    That a field has a method for it at all also keeps PostgreSQL from inserting many rows as arrays. Records are full
    of quotation marks and backslashes then, each of which is escaped once more: that takes twice as long.
    """
    return "_binary %s" if value.__class__ is bytes and connection.vendor == "mysql" else "%s"
