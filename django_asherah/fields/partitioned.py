"""The part of an encrypted field that knows whose its values are: the field's own partition's, or the row's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from functools import lru_cache
from typing import Any, cast
from uuid import UUID

from django.core.exceptions import FieldError, ValidationError
from django.db import models
from django.utils.functional import cached_property

from django_asherah.exceptions import EncryptionError
from django_asherah.fields.generic import GenericField, Get_co, Set_contra
from django_asherah.fields.template import PartitionTemplate

_EXACT = frozenset({int, str, UUID, date, bool})
"""Types of which two values that are equal have one text; of a Decimal, 1.1 and 1.10 have two."""


class PartitionedMixin(GenericField[Set_contra, Get_co]):
    """A field with a partition.

    Attributes:
        partition: as it was given.
        template: what makes a row's partition; None if the partition is the same for every row.
    """

    partition: str | None
    template: PartitionTemplate | None

    def contribute_to_class(self, cls: type[models.Model], name: str, **kwargs: Any) -> None:  # type: ignore[override]
        """Become a field of a model: a copy of another model's field forgets that model's columns."""
        self.__dict__.pop("partition_fields", None)
        self.__dict__.pop("_rendered", None)
        super().contribute_to_class(cls, name, **kwargs)

    @cached_property
    def partition_fields(self) -> tuple[models.Field[Any, Any], ...]:
        """The columns that say the row's partition, in the template's order.

        Raises:
            FieldDoesNotExist: the model has no such column.
        """
        get_field: Callable[[str], Any] = self.model._meta.get_field
        return tuple(get_field(name) for name in self.template.names) if self.template else ()

    def partition_of(self, values: Sequence[Any]) -> str | None:
        """Return the partition of a row; None if it is the field's own.

        Args:
            values: those of the columns in :attr:`partition_fields`.

        Raises:
            EncryptionError: one of them is None, empty, or no value of its column.
        """
        if self.template is None:
            return None
        return self._rendered(*values) if _EXACT.issuperset(map(type, values)) else self._render(values)

    @cached_property
    def _rendered(self) -> Callable[..., str]:
        # Typed, as 1 and True are equal, and a column of text makes two texts of them.
        return lru_cache(maxsize=4096, typed=True)(lambda *values: self._render(values))

    def _render(self, values: Sequence[Any]) -> str:
        stored = []
        for column, value in zip(self.partition_fields, values, strict=True):
            try:
                stored.append(_as_stored(column, value))
            except (ValidationError, ValueError, TypeError):
                break
        else:
            return cast(PartitionTemplate, self.template).render(stored)
        raise EncryptionError(
            f"its partition {self.partition!r} needs {column.name!r}, which can't be this {type(value).__name__}"
        )

    def needs_row(self) -> FieldError:
        """Return the error for a value whose partition the row says, where no row is known."""
        names = ", ".join(self.template.names) if self.template else ""
        return FieldError(
            f"{self.full_name}: the row says its partition {self.partition!r}, and here no row is known. Save "
            "instances, or use bulk_create(), or bulk_update() of django_asherah.fields.EncryptedQuerySet. To read it "
            f"in values(), values_list() or annotate(), select {names} of the same row, too; or read instances."
        )

    @property
    def full_name(self) -> str:
        """The field's full name for messages, for example ``clinic.Patient.ssn``."""
        model = getattr(self, "model", None)
        return f"{model._meta.label}.{self.name}" if model else type(self).__name__


def _as_stored(column: models.Field[Any, Any], value: Any) -> Any:
    """Return a value as it will be read again once it is stored: a field may write something else than it is given.

    Raises:
        ValidationError, ValueError, TypeError: it is none of the column's, or nobody knows before it is stored.
    """
    if hasattr(value, "resolve_expression"):
        raise TypeError("the database computes it")
    return None if value is None else column.to_python(column.get_prep_value(value))
