"""A queryset that updates many rows, each under the partition that it says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.db import models

from django_asherah.fields.mixin import EncryptedFieldMixin
from django_asherah.fields.moves import require_whole_moves
from django_asherah.fields.pending import give_keys
from django_asherah.fields.rows import remember
from django_asherah.fields.unprepared import prepare_rows, restore_rows

if TYPE_CHECKING:
    Base = models.QuerySet[Any]
else:
    Base = models.QuerySet


class EncryptedQuerySet(Base):
    """A queryset whose ``bulk_update()`` knows the row of each value: ``objects = EncryptedQuerySet.as_manager()``.

    Django's own knows only values, and raises ``FieldError`` where a partition depends on the row. What was not read is
    written back as it was loaded.
    """

    def bulk_update(self, objs: Iterable[Any], fields: Iterable[str], batch_size: int | None = None) -> int:
        """Update these fields of these instances, as Django does.

        Raises:
            FieldError: a row would say another partition than its values have.
            AsherahError: a value can't be sealed; nothing is written.
        """
        instances, names = tuple(objs), list(fields)
        given = [self.model._meta.get_field(name) for name in names]
        require_whole_moves(instances, names, self.db)
        held = prepare_rows(instances, [field for field in given if isinstance(field, EncryptedFieldMixin)])
        try:
            give_keys(vars(each.instance)[each.name] for each in held)
            updated = super().bulk_update(instances, fields=names, batch_size=batch_size)
        finally:
            restore_rows(held)
        for instance in instances:
            remember(self.model, instance, names)
        return updated

    bulk_update.alters_data = True  # type: ignore[attr-defined]
