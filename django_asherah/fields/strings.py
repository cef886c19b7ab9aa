"""Field types for text and short strings. ``max_length`` counts characters of the string, never of the record."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from django.core import checks
from django.db import models

from django_asherah.fields.generic import Get_co, Set_contra
from django_asherah.fields.mixin import EncryptedFieldMixin
from django_asherah.fields.utf8 import decode_text, encode_text


class EncryptedTextField(EncryptedFieldMixin[Set_contra, Get_co], models.TextField):
    """A ``TextField`` whose column holds only records. ``max_length`` counts characters of the text."""

    def dump(self, value: Any) -> bytes:
        """Return the text in UTF-8.

        Raises:
            EncryptionError: it holds lone surrogates.
        """
        if value.__class__ is str:
            try:
                return value.encode()
            except UnicodeEncodeError:
                pass
        return encode_text(self.get_prep_value(value))

    load = staticmethod(decode_text)


class _StringMixin(EncryptedFieldMixin[Set_contra, Get_co]):
    """Strings, sealed in UTF-8 as they are."""

    def dump(self, value: Any) -> bytes:
        return encode_text(value if value.__class__ is str else self.get_prep_value(value))

    def load(self, payload: bytes) -> str:
        return decode_text(payload)

    def _check_max_length_attribute(self, **kwargs: Any) -> list[checks.CheckMessage]:
        """Let ``max_length`` be left out on every database: the column is text."""
        return [] if self.max_length is None else super()._check_max_length_attribute(**kwargs)  # type: ignore[misc]


class EncryptedCharField(_StringMixin[Set_contra, Get_co], models.CharField):
    """A ``CharField`` whose column holds only records. ``max_length`` may be left out."""


class EncryptedEmailField(_StringMixin[Set_contra, Get_co], models.EmailField):
    """An ``EmailField`` whose column holds only records."""


class EncryptedURLField(_StringMixin[Set_contra, Get_co], models.URLField):
    """A ``URLField`` whose column holds only records."""


class EncryptedGenericIPAddressField(EncryptedFieldMixin[Set_contra, Get_co], models.GenericIPAddressField):
    """A ``GenericIPAddressField`` whose column holds only records.

    As on PostgreSQL, what is no address is refused. As everywhere, an empty string is stored as NULL.
    """

    def dump(self, value: Any) -> bytes:
        """Return the address as text.

        Raises:
            ValueError: it is none.
        """
        text = self.to_python(value)
        ip_address(text)
        return encode_text(text)

    def load(self, payload: bytes) -> str:
        """Return the address.

        Raises:
            ValueError: the payload is none.
        """
        text = decode_text(payload)
        if text.endswith(("/32", "/128")):  # How PostgreSQL writes a plain column's address as text.
            text = text.partition("/")[0]
        ip_address(text)
        return text

    def _prepared(self, value: Any, partition: str | None = None, *, is_new: bool = True) -> Any:
        return super()._prepared(None if value == "" else value, partition, is_new=is_new)
