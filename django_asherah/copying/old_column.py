"""A column of another library's field, and its values one by one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.db import InterfaceError, OperationalError, models
from django.db.models import ExpressionWrapper, F
from django.views.decorators.debug import sensitive_variables

from django_asherah.copying.plausibility import Plausibility
from django_asherah.fields import EncryptedFieldMixin

_RAW = "raw_of_the_old_column"


class NotAValueError(Exception):
    """What the old field gives for a row is not to be taken for a value. The message says why, without it."""


class OldColumn:
    """The values of a library's field, in rows that other managers may hide."""

    def __init__(
        self, model: type[models.Model], name: str, using: str, plausibility: Plausibility, accept: Collection[Any]
    ) -> None:
        self.name = name
        self.label = f"{model._meta.label}.{name}"
        self._table = model._base_manager.using(using)
        field = model._meta.get_field(name)
        self._stored = ExpressionWrapper(F(name), output_field=models.Field())
        if isinstance(field, EncryptedFieldMixin):  # It watches its column, and knows this expression alone.
            self._stored = field.raw_value()
        self._plausibility = plausibility
        self._accept = accept

    def rows(self) -> Any:
        """Return the rows that have a value. It is not loaded with them: each is read, and fails, on its own."""
        rows = self._table.filter(**{f"{self.name}__isnull": False})
        return rows.defer(self.name).annotate(**{_RAW: self._stored})

    def raw(self, row: models.Model) -> Any:
        """Return what the column holds in a row of :meth:`rows`."""
        return getattr(row, _RAW)

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
        try:
            return self._plausibility.fault(value, self.raw(row))
        except Exception as exc:  # Of the application's plausible().
            return f"plausible() raised {type(exc).__name__}"
