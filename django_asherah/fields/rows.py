"""What a row says of its partition: its columns as they were loaded, and as they are by now.

A field with a :class:`~django_asherah.fields.template.PartitionTemplate` opens what was loaded under the partition of
the row as it was loaded, and seals under that of the row as it is. So an instance remembers these columns, in its
``_state``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, TypeAlias, cast

from django.core.exceptions import FieldError
from django.db import models
from django.db.models.signals import class_prepared, post_init, post_save, pre_save

from django_asherah.fields.interfaces import RowField
from django_asherah.fields.sealed import SealedValue

Unprepared: TypeAlias = tuple[models.Model, str, Any]
"""An instance, the name of an attribute, and what the instance held under it."""

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
    return bool(_changed(field, instance))  # What is not there to be seen was not assigned either.


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
        if held.__class__ is SealedValue and loaded_partition(field, held, instance) != current_partition(
            field, instance
        ):
            open_unread(field, held, instance)
    remember(type(instance), instance)


def require_whole_move(instance: models.Model, names: Collection[str], alias: str | None) -> None:
    """Refuse to write a row's partition without its values, or its values without its partition.

    Args:
        instance: the row.
        names: the fields that are written, by name or ``attname``.
        alias: the database; the row's own if None.

    Raises:
        FieldError: the row would say another partition than its values have.
    """
    for field in row_fields(type(instance)):
        changed = _changed(field, instance)
        written = [column.name for column in changed if column.name in names or column.attname in names]
        is_whole = len(written) == len(changed) and field.name in names
        is_untouched = not written and field.name not in names
        if changed and not is_whole and not is_untouched and _is_elsewhere(field, instance, alias):
            wanted = ", ".join(repr(name) for name in _whole(instance, changed))
            raise FieldError(
                f"{field.full_name}: {changed[0].name!r} has changed, and with it the partition {field.partition!r}: "
                f"its value has to be sealed anew. Save {wanted} together, or save() the whole row."
            )


def require_same_row(field: RowField, instance: models.Model) -> None:
    """Refuse an expression in a row that moves: the database would take a record of the partition that it leaves.

    Raises:
        FieldError: it moves.
    """
    if not instance._state.adding and _changed(field, instance) and _is_elsewhere(field, instance, None):
        raise FieldError(
            f"{field.full_name}: an expression can't be saved together with another partition {field.partition!r}: "
            "save the one, and then the other."
        )


def prepare_rows(instances: Iterable[models.Model], fields: Collection[RowField]) -> list[Unprepared]:
    """Let instances hold prepared values, for what asks them and no field's ``pre_save``; return what they held.

    Raises:
        AsherahError: a value can't be prepared; the instances are as they were.
    """
    held: list[Unprepared] = []
    try:
        for instance in instances:
            for field in fields:
                name = field.attname
                value = instance.__dict__[name] if name in instance.__dict__ else getattr(instance, name)
                if value is not None:
                    held.append((instance, name, value))
                    instance.__dict__[field.attname] = field.prepare(value, instance)
    except BaseException:
        restore_rows(held)
        raise
    return held


def restore_rows(held: Iterable[Unprepared]) -> None:
    """Undo :func:`prepare_rows`."""
    for instance, name, value in held:
        instance.__dict__[name] = value


def _whole(instance: models.Model, changed: Collection[models.Field[Any, Any]]) -> list[str]:
    """Return the names of columns that have changed, and of all the fields whose partition they say."""
    fields = [field.name for field in row_fields(type(instance)) if not set(changed).isdisjoint(field.partition_fields)]
    return [*(column.name for column in changed), *fields]


def _loaded(instance: models.Model) -> dict[str, Any]:
    loaded: dict[str, Any] = instance._state.__dict__.get(_LOADED, {})
    return loaded


def _changed(field: RowField, instance: models.Model) -> list[models.Field[Any, Any]]:
    """Return the columns that may say something else than when the row was loaded."""
    loaded, held, is_new = _loaded(instance), instance.__dict__, instance._state.adding
    return [
        column
        for column in field.partition_fields
        if (name := column.attname) in held and (is_new or name not in loaded or held[name] != loaded[name])
    ]


def _is_elsewhere(field: RowField, instance: models.Model, alias: str | None) -> bool:
    """Tell whether the database has another partition for the row. It may have been refreshed, and then it has not."""
    names = [column.attname for column in field.partition_fields]
    rows = field.model._base_manager.using(alias or instance._state.db).filter(pk=instance.pk)
    stored = rows.values_list(*names).first()
    return stored is not None and field.partition_of(stored) != current_partition(field, instance)


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


def _before_save(sender: Any, instance: models.Model, raw: bool, using: str, update_fields: Any, **kwargs: Any) -> None:
    if update_fields is not None:
        require_whole_move(instance, update_fields, using)


def _after_save(sender: Any, instance: models.Model, update_fields: Any, **kwargs: Any) -> None:
    remember(sender, instance, update_fields)


def watch(sender: Any, **kwargs: Any) -> None:
    """Let the instances of a model remember their row, if it has encrypted fields whose partition the row says."""
    sender._meta.__dict__.pop(_FIELDS, None)
    sender._meta.__dict__.pop(_COLUMNS, None)
    if not sender._meta.abstract and row_fields(sender):
        post_init.connect(remember, sender=sender)
        pre_save.connect(_before_save, sender=sender)
        post_save.connect(_after_save, sender=sender)


class_prepared.connect(watch)
