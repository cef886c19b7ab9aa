"""Field types for bytes and for what is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models

from django_asherah.exceptions import InvalidRecordError
from django_asherah.fields.generic import Get_co, Set_contra
from django_asherah.fields.mixin import EncryptedFieldMixin


class EncryptedBinaryField(EncryptedFieldMixin[Set_contra, Get_co], models.BinaryField):
    """A ``BinaryField`` whose column holds only records. It yields ``bytes`` on every database."""

    if TYPE_CHECKING:
        _pyi_private_get_type: bytes

    def dump(self, value: Any) -> bytes:
        """Return the bytes, also of a ``bytearray`` or a ``memoryview``.

        Raises:
            TypeError: it is something else.
        """
        if value == "":  # Django's default for a new column that may be blank.
            return b""
        return bytes(memoryview(value))

    def load(self, payload: bytes) -> bytes:
        """Return the bytes."""
        return payload

    def load_plaintext(self, raw: str | bytes) -> bytes:
        """Return the bytes of a binary column.

        Raises:
            InvalidRecordError: it is text, which each database makes of bytes in its own way.
        """
        if isinstance(raw, bytes):
            return raw
        raise InvalidRecordError("a binary column can't become a text column: use record_format='compact'")


class EncryptedUUIDField(EncryptedFieldMixin[Set_contra, Get_co], models.UUIDField):
    """A ``UUIDField`` whose column holds only records."""
