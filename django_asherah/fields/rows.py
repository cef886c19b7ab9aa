"""What a row says of its partition: its columns as they were loaded, and as they are by now.

A field with a :class:`~django_asherah.fields.template.PartitionTemplate` opens what was loaded under the partition of
the row as it was loaded, and seals under that of the row as it is. So an instance remembers these columns, in its
``_state``.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

from django.db import models

from django_asherah.fields.interfaces import RowField
from django_asherah.fields.sealed import SealedValue

_LOADED = "partition_columns"
_FIELDS, _COLUMNS = "_encrypted_row_fields", "_encrypted_row_columns"


def row_fields(model: type[models.Model]) -> tuple[RowField, ...]:
    """Return the encrypted fields of a model whose partition the row says, inherited ones included."""
    kept = model._meta.__dict__  # There it goes when the model does.
    try:
        return cast(tuple[RowField, ...], kept[_FIELDS])
    except KeyError:
        fields: Any = model._meta.concrete_fields
        kept[_FIELDS] = tuple(field for field in fields if getattr(field, "template", None))
        return cast(tuple[RowField, ...], kept[_FIELDS])


def _partition_columns(model: type[models.Model]) -> dict[str, str]:
    """Return the columns that say partitions: each field's name by its ``attname``."""
    kept = model._meta.__dict__
    try:
        return cast(dict[str, str], kept[_COLUMNS])
    except KeyError:
        columns = [column for field in row_fields(model) for column in field.partition_fields]
        kept[_COLUMNS] = {column.attname: column.name for column in columns}
        return cast(dict[str, str], kept[_COLUMNS])


def current_partition(field: RowField, instance: models.Model) -> str | None:
    """Return the partition that the row says now.

    Raises:
        EncryptionError: it says none.
    """
    return field.partition_of([getattr(instance, column.attname) for column in field.partition_fields])


def loaded_partition(field: RowField, held: SealedValue, instance: models.Model) -> str | None:
    """Return the partition of the row that an unread value was loaded from; None if that isn't known.

    Raises:
        EncryptionError: the row said none.
    """
    loaded = _loaded(instance)
    if held.loaded.partition is not None or any(column.attname not in loaded for column in field.partition_fields):
        return held.loaded.partition
    return field.partition_of([loaded[column.attname] for column in field.partition_fields])


def may_have_moved(field: RowField, held: SealedValue, instance: models.Model) -> bool:
    """Tell whether the row may say another partition than that of an unread value. Needs no query to tell."""
    if all(column.attname in instance.__dict__ for column in field.partition_fields):
        return loaded_partition(field, held, instance) != current_partition(field, instance)
    return bool(changed_columns(field, instance))  # What is not there to be seen was not assigned either.


def open_unread(field: RowField, held: SealedValue, instance: models.Model) -> bytes:
    """Read what an instance holds unread, under the partition that it was loaded from, and return the payload.

    Raises:
        AsherahError: it can't be opened.
    """
    payload = field.payload_of(held.record, loaded_partition(field, held, instance), held.loaded.keys)
    instance.__dict__[field.attname] = field.load_safely(payload)
    return payload


def settle(instance: models.Model) -> None:
    """Take the row as it is for the row as it was loaded, once nothing unread depends on the latter.

    Raises:
        AsherahError: something unread can't be opened.
    """
    loaded, now = _loaded(instance), instance.__dict__
    if all(loaded.get(name) == now.get(name) for name in _partition_columns(type(instance))):
        return
    for field in row_fields(type(instance)):
        held = now.get(field.attname)
        if held.__class__ is not SealedValue or loaded_partition(field, held, instance) is None:
            continue
        if may_have_moved(field, held, instance):
            open_unread(field, held, instance)
    remember(type(instance), instance)


def _loaded(instance: models.Model) -> dict[str, Any]:
    loaded: dict[str, Any] = instance._state.__dict__.get(_LOADED, {})
    return loaded


def changed_columns(field: RowField, instance: models.Model) -> list[models.Field[Any, Any]]:
    """Return the columns that may say something else than when the row was loaded."""
    loaded, held, is_new = _loaded(instance), instance.__dict__, instance._state.adding
    return [
        column
        for column in field.partition_fields
        if (name := column.attname) in held
        and (is_new or name not in loaded or type(held[name]) is not type(loaded[name]) or held[name] != loaded[name])
    ]


def forget_columns(model: type[models.Model]) -> None:
    """Find the fields and columns of a model anew: it has another field."""
    model._meta.__dict__.pop(_FIELDS, None)
    model._meta.__dict__.pop(_COLUMNS, None)


def remember(
    sender: type[models.Model], instance: models.Model, names: Collection[str] | None = None, **kwargs: Any
) -> None:
    """Take the columns as they are for what was loaded.

    Args:
        sender: the model.
        instance: the row.
        names: which columns, by name or ``attname``; all if None.
        kwargs: what else Django's signals pass.
    """
    held, loaded = instance.__dict__, {**_loaded(instance)}
    for attname, name in _partition_columns(sender).items():
        if attname in held and (names is None or attname in names or name in names):
            loaded[attname] = held[attname]
    instance._state.__dict__[_LOADED] = loaded


def knows_row(instance: models.Model) -> bool:
    """Tell whether an instance remembers what its row said when it was loaded."""
    return _LOADED in instance._state.__dict__


def forget(instance: models.Model) -> None:
    """Let an instance know no more what its row said when it was loaded: it has been loaded again, in part perhaps."""
    instance._state.__dict__.pop(_LOADED, None)
