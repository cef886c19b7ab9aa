"""Rows that move to another partition: with all their values, or not at all."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from django.core.exceptions import FieldError
from django.db import connections, models

from django_asherah.fields.interfaces import RowField
from django_asherah.fields.rows import changed_columns, current_partition, row_fields
from django_asherah.fields.sealed import SealedValue

_AT_ONCE = 500
"""Rows that one query asks for."""


def require_whole_moves(instances: Sequence[models.Model], names: Collection[str], alias: str | None) -> None:
    """Refuse to write rows' partitions without their values, or their values without their partitions.

    The database is asked what the rows say, as instances may be older than that, or newer than a rollback.

    Args:
        instances: the rows, of one model.
        names: the fields that are written, by name or ``attname``.
        alias: the database; the rows' own if None.

    Raises:
        FieldError: a row would say another partition than its values have.
    """
    for field in row_fields(type(instances[0])) if instances else ():
        named = [column.name in names or column.attname in names for column in field.partition_fields]
        if (field.name in names and all(named)) or (field.name not in names and not any(named)):
            continue
        moved = next(_elsewhere(field, instances, alias), None)
        if moved is not None:
            columns = ", ".join(repr(column.name) for column in field.partition_fields)
            wanted = ", ".join(repr(name) for name in _whole(moved, field.partition_fields))
            raise FieldError(
                f"{field.full_name}: {columns} has changed, and with it the partition {field.partition!r}: its value "
                f"has to be sealed anew. Save {wanted} together, or save() the whole row."
            )


def require_same_row(field: RowField, instance: models.Model) -> None:
    """Refuse an expression in a row that moves: the database would take a record of the partition that it leaves.

    Raises:
        FieldError: it moves.
    """
    is_here = instance._state.adding or not changed_columns(field, instance)
    if not is_here and next(_elsewhere(field, [instance], None), None) is not None:
        raise FieldError(
            f"{field.full_name}: an expression can't be saved together with another partition {field.partition!r}: "
            "save the one, and then the other."
        )


def _whole(instance: models.Model, changed: Collection[models.Field[Any, Any]]) -> list[str]:
    """Return the names of columns that have changed, and of all the fields whose partition they say."""
    fields = [field.name for field in row_fields(type(instance)) if not set(changed).isdisjoint(field.partition_fields)]
    return [*(column.name for column in changed), *fields]


def _elsewhere(field: RowField, instances: Sequence[models.Model], alias: str | None) -> Iterator[models.Model]:
    """Yield the instances that say another partition than their rows do in the database."""
    names = [column.attname for column in field.partition_fields]
    rows = field.model._base_manager.using(alias or instances[0]._state.db)
    if connections[rows.db].in_atomic_block:  # Where it can, the database holds them until the write.
        rows = rows.select_for_update()
    for start in range(0, len(instances), _AT_ONCE):
        part = instances[start : start + _AT_ONCE]
        stored = {pk: said for pk, *said in rows.filter(pk__in=[each.pk for each in part]).values_list("pk", *names)}
        for each in part:
            if each.pk in stored and field.partition_of(stored[each.pk]) != _partition_to_write(field, each):
                yield each


def _partition_to_write(field: RowField, instance: models.Model) -> str | None:
    held = instance.__dict__.get(field.attname)
    knows = all(column.attname in instance.__dict__ for column in field.partition_fields)
    if not knows and held.__class__ is SealedValue and held.loaded.partition is not None:
        return held.loaded.partition  # Asking for what was left out would be a query more.
    return current_partition(field, instance)
