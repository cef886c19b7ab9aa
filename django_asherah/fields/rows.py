"""What a row says of its partition: its columns as they were loaded, and as they are by now.

A field with a :class:`~django_asherah.fields.template.PartitionTemplate` opens what was loaded under the partition of
the row as it was loaded, and seals under that of the row as it is. So an instance remembers these columns, in its
``_state``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from inspect import getattr_static
from typing import Any, cast

from django.core.exceptions import FieldError
from django.db import connections, models
from django.db.models.signals import class_prepared, post_init, post_save, pre_save
from msgspec import Struct

from django_asherah.exceptions import AsherahError
from django_asherah.fields.interfaces import RowField
from django_asherah.fields.sealed import PreparedValue, SealedValue


class Unprepared(Struct, frozen=True, gc=False):
    """What an instance held under the name of an attribute, which holds a prepared value for a while."""

    instance: models.Model
    name: str
    value: Any

    def __repr__(self) -> str:
        return "<Unprepared>"


_AT_ONCE = 500
"""Rows that one query asks for."""

_LOADED = "partition_columns"
_UNPREPARED = "unprepared"
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
        if held.__class__ is not SealedValue or loaded_partition(field, held, instance) is None:
            continue
        if may_have_moved(field, held, instance):
            open_unread(field, held, instance)
    remember(type(instance), instance)


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
    is_here = instance._state.adding or not _changed(field, instance)
    if not is_here and next(_elsewhere(field, [instance], None), None) is not None:
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
                _prepare(field, instance, held)
    except BaseException as exc:
        restore_rows(held)
        # The frames below hold values, and a debug page shows what frames hold.
        raise exc.with_traceback(None)  # noqa: B904 - it is the same error
    return held


def restore_rows(held: Sequence[Unprepared]) -> None:
    """Undo :func:`prepare_rows`."""
    for each in reversed(held):  # One that was given twice has its value back at last.
        each.instance.__dict__[each.name] = each.value


def _prepare(field: RowField, instance: models.Model, held: list[Unprepared]) -> None:
    name = field.attname
    if name not in instance.__dict__:
        getattr(instance, name)
    value = instance.__dict__.get(name)
    if value is None or value.__class__ is PreparedValue:
        return
    try:
        prepared = field.prepare(value, instance)
    except AsherahError as exc:
        raise exc.at(field.full_name)  # noqa: B904 - it is the same error
    held.append(Unprepared(instance, name, value))
    instance.__dict__[name] = prepared


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
        if (name := column.attname) in held
        and (is_new or name not in loaded or type(held[name]) is not type(loaded[name]) or held[name] != loaded[name])
    ]


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
    restore_rows(instance._state.__dict__.pop(_UNPREPARED, ()))  # Of a save that failed.
    if raw:
        # An attribute that another descriptor is wrapped around does not see who asks it.
        wrapped = [field for field in row_fields(sender) if not _knows_writers(sender, field.attname)]
        instance._state.__dict__[_UNPREPARED] = prepare_rows([instance], wrapped)
    elif update_fields is not None:
        require_whole_moves([instance], update_fields, using)


def _after_save(sender: Any, instance: models.Model, update_fields: Any, **kwargs: Any) -> None:
    restore_rows(instance._state.__dict__.pop(_UNPREPARED, ()))
    remember(sender, instance, update_fields)


def _knows_writers(model: type[models.Model], name: str) -> bool:
    return getattr(getattr_static(model, name), "knows_writers", False) is True


def watch(sender: Any, **kwargs: Any) -> None:
    """Let the instances of a model remember their row, if it has encrypted fields whose partition the row says."""
    sender._meta.__dict__.pop(_FIELDS, None)
    sender._meta.__dict__.pop(_COLUMNS, None)
    if not sender._meta.abstract and row_fields(sender):
        post_init.connect(remember, sender=sender)
        pre_save.connect(_before_save, sender=sender)
        post_save.connect(_after_save, sender=sender)


class_prepared.connect(watch)
