"""Field types for numbers and for true and false."""

from __future__ import annotations

from typing import Any

from django.db import models

from django_asherah.fields.generic import Get_co, Set_contra
from django_asherah.fields.mixin import EncryptedFieldMixin

_WRITTEN = {True: b"true", False: b"false"}

_READ = {b"true": True, b"false": False, b"1": True, b"0": False}
"""The digits are how SQLite and MySQL write a plain column's values as text."""


class EncryptedIntegerField(EncryptedFieldMixin[Set_contra, Get_co], models.IntegerField):
    """An ``IntegerField`` whose column holds only records.

    Forms and ``full_clean()`` keep to a plain column's range; what is saved without them may be any integer.
    """


class EncryptedBigIntegerField(EncryptedFieldMixin[Set_contra, Get_co], models.BigIntegerField):
    """A ``BigIntegerField`` whose column holds only records. Its range is as with ``EncryptedIntegerField``."""


class EncryptedFloatField(EncryptedFieldMixin[Set_contra, Get_co], models.FloatField):
    """A ``FloatField`` whose column holds only records. -0.0, infinities and NaN come back as they were."""


class EncryptedDecimalField(EncryptedFieldMixin[Set_contra, Get_co], models.DecimalField):
    """A ``DecimalField`` whose column holds only records.

    A value comes back exactly: sign, digits, exponent and trailing zeros. Unlike a plain column, nothing is rounded to
    ``decimal_places``; forms and ``full_clean()`` check them and ``max_digits``. NaN and infinities are refused.
    """


class EncryptedBooleanField(EncryptedFieldMixin[Set_contra, Get_co], models.BooleanField):
    """A ``BooleanField`` whose column holds only records."""

    def dump(self, value: Any) -> bytes:
        """Return ``true`` or ``false``.

        Raises:
            ValidationError: the value is neither.
        """
        return _WRITTEN[self.get_prep_value(value)]

    def load(self, payload: bytes) -> bool:
        """Return True or False.

        Raises:
            KeyError: the payload is neither.
        """
        return _READ[payload]
