"""A column of another library's field, and its values one by one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.db import InterfaceError, OperationalError, models
from django.db.models import ExpressionWrapper, F
from django.views.decorators.debug import sensitive_variables

from django_asherah.copying.plausibility import Plausibility, is_empty, length_of
from django_asherah.fields import EncryptedFieldMixin

_RAW = "raw_of_the_old_column"

NOT_EMPTY = "it is empty, and the column holds more than for the shortest of other values"


class NotAValueError(Exception):
    """What the old field gives for a row is not to be taken for a value. The message says why, without it."""


class OldColumn:
    """The values of a library's field, in rows that other managers may hide.

    Attributes:
        shortest: how much the column holds for the shortest value that is known; None if none is. What is longer
            unencrypted is not shorter encrypted, so that an empty value which takes more is not the row's: the field
            gives it for what it can't decrypt.
    """

    def __init__(
        self, model: type[models.Model], name: str, using: str, plausibility: Plausibility, accept: Collection[Any]
    ) -> None:
        self.name = name
        self.label = f"{model._meta.label}.{name}"
        self._table = model._base_manager.using(using)
        field = model._meta.get_field(name)
        self._stored = ExpressionWrapper(F(name), output_field=models.Field())
        self._is_ours = isinstance(field, EncryptedFieldMixin)
        if isinstance(field, EncryptedFieldMixin):  # It watches its column, and knows this expression alone.
            self._stored = field.raw_value()
        self._plausibility = plausibility
        self._accept = accept
        self.shortest: int | None = None

    def rows(self) -> Any:
        """Return the rows that have a value. It is not loaded with them: each is read, and fails, on its own."""
        rows = self._table.filter(**{f"{self.name}__isnull": False})
        return rows.defer(self.name).annotate(**{_RAW: self._stored})

    def raw(self, row: models.Model) -> Any:
        """Return what the column holds in a row of :meth:`rows`."""
        return getattr(row, _RAW)

    def length(self, row: models.Model) -> int:
        """Return how much the column holds in a row; 0 where that says nothing.

        Our fields give no value for what they can't decrypt, and their records name partitions of any length. What the
        application has looked at may be unencrypted.
        """
        return 0 if self._is_ours or row.pk in self._accept else length_of(self.raw(row))

    @sensitive_variables()
    def read(self, row: models.Model) -> Any:
        """Return what the field gives for a row, whatever it is.

        Raises:
            NotAValueError: it gives an error.
            OperationalError, InterfaceError: the database failed.
        """
        try:
            return getattr(row, self.name)
        except (OperationalError, InterfaceError):
            raise
        except Exception as exc:  # A library's message may hold the value, so that its name is all that is told.
            error = type(exc).__name__
        raise NotAValueError(error)

    @sensitive_variables()
    def value(self, row: models.Model) -> Any:
        """Return the value of a row.

        Raises:
            NotAValueError: the field gives none, or what can't be one.
            OperationalError, InterfaceError: the database failed.
        """
        value = self.read(row)
        if fault := self._fault(value, row):
            raise NotAValueError(fault)
        return value

    @sensitive_variables()
    def _fault(self, value: Any, row: models.Model) -> str:
        if row.pk in self._accept:
            return self._plausibility.type_fault(value)
        if is_empty(value) and self.shortest is not None and self.length(row) > self.shortest:
            return NOT_EMPTY
        try:
            return self._plausibility.fault(value, self.raw(row))
        except Exception as exc:  # Of the application's plausible().
            return f"plausible() raised {type(exc).__name__}"
