"""What a partition template may name: columns that say the same before and after a save, and in one way only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core import checks
from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.db.models.fields import NOT_PROVIDED

_TEXTS = (
    models.IntegerField,
    models.CharField,
    models.TextField,
    models.UUIDField,
    models.DateField,
    models.BooleanField,
)
"""Kinds of columns whose values have one text each; a ``DateTimeField`` is a ``DateField`` and has none."""

_SET_BY_DELETE = frozenset({"SET_NULL", "SET_DEFAULT", "SET", "DB_SET_NULL", "DB_SET_DEFAULT"})

_PASSES_ON = frozenset(
    field.pre_save for field in (models.Field, models.DateField, models.DateTimeField, models.TimeField)
)
"""Those that change nothing, unless the field has Django set the time."""


def check_partition(field: Any) -> list[checks.CheckMessage]:
    """Return what is wrong with a field's partition template: ``asherah.E120`` to ``E127``, and ``W128``."""
    if field.template is None:
        return []
    found = [_error(field, *wrong) for wrong in _about_template(field)]
    for name in field.template.names:
        try:
            column = field.model._meta.get_field(name)
        except FieldDoesNotExist:
            found.append(
                _error(
                    field, "asherah.E120", f"names {name!r}, which is no column of {field.model._meta.label}", _UNKNOWN
                )
            )
            continue
        found += [_error(field, id, f"names {name!r}, {problem}", hint) for id, problem, hint in _about(field, column)]
        if _on_delete(column) == "DB_CASCADE":
            found.append(_cascade(field, name))
    return found


_UNKNOWN = (
    "Name a column of the same table, such as 'clinic_id'. Of a related row, keep a copy of the column in this table, "
    "and let save() fill it."
)


def _about_template(field: Any) -> Iterator[tuple[str, str, str]]:
    if not field.template.names:
        yield (
            "asherah.E120",
            "names no column",
            "Write a brace that is meant as such twice, or name a column between braces.",
        )
    if field.template.is_ambiguous:
        yield (
            "asherah.E126",
            "could be the same for two rows whose columns differ",
            "Put a character between the columns that no value can hold, such as ':' in 'clinic-{clinic_id}:{ward}'.",
        )


def _about(field: Any, column: Any) -> Iterator[tuple[str, str, str]]:
    """Yield what is wrong with a column that a template names: an id, the problem and what to do."""
    if not getattr(column, "concrete", False) or column.column is None or column.many_to_many:
        yield "asherah.E120", "which is no column", _UNKNOWN
        return
    if column.model._meta.concrete_model is not field.model._meta.concrete_model:
        yield (
            "asherah.E127",
            "which is in another table, and can change there alone",
            "Keep the column in this field's own table.",
        )
    if column.null and not _is_history(column):
        yield "asherah.E121", "which may be NULL", "Let it be null=False: every row needs a partition."
    if _is_made_late(column):
        yield (
            "asherah.E122",
            "which the database makes, or Django when the row is saved",
            "Name a column whose value is known before that, such as UUIDField(default=uuid.uuid4).",
        )
    target = _target(column)
    if isinstance(target, models.DateTimeField) or not isinstance(target, _TEXTS) or getattr(target, "format", None):
        yield (
            "asherah.E123",
            f"and a {type(target).__name__} can't say a partition",
            "Name a column of integers, strings, UUIDs, dates or truth values that is not encrypted.",
        )
    elif _ignores_case(target):
        yield (
            "asherah.E124",
            "whose collation ignores case, so that one tenant could have two keys",
            "Give the column a collation that tells upper from lower case, or name another one.",
        )
    if _on_delete(column) in _SET_BY_DELETE:
        yield (
            "asherah.E125",
            "which changes when the row that it points to is deleted, with no value being sealed anew",
            "Let on_delete be PROTECT, RESTRICT or CASCADE.",
        )


def _is_made_late(column: Any) -> bool:
    made_by_database = column.generated or getattr(column, "db_default", NOT_PROVIDED) is not NOT_PROVIDED
    made_by_save = getattr(column, "auto_now", False) or getattr(column, "auto_now_add", False)
    is_computed = type(column).pre_save not in _PASSES_ON and not hasattr(column, "record_kind")
    return isinstance(column, models.AutoField) or made_by_database or made_by_save or is_computed


def _is_history(column: Any) -> bool:
    """Tell whether a foreign key is a copy such as history packages make, which only ever holds what was there."""
    remote = column.remote_field
    return remote is not None and _on_delete(column) == "DO_NOTHING" and not column.db_constraint


def _target(column: Any) -> Any:
    while getattr(column, "remote_field", None) is not None:
        column = column.target_field
    return column


def _on_delete(column: Any) -> str:
    on_delete = getattr(column.remote_field, "on_delete", None)
    return "SET" if hasattr(on_delete, "deconstruct") else getattr(on_delete, "__name__", str(on_delete))


def _ignores_case(column: Any) -> bool:
    collation = (getattr(column, "db_collation", None) or "").lower()
    return collation.endswith(("_ci", "_ai")) or "nocase" in collation


def _error(field: Any, id: str, problem: str, hint: str) -> checks.CheckMessage:
    return checks.Error(f"The partition {field.partition!r} {problem}.", hint=hint, obj=field, id=id)


def _cascade(field: Any, name: str) -> checks.CheckMessage:
    return checks.Warning(
        f"The partition {field.partition!r} names {name!r}, whose rows the database deletes by itself.",
        hint="No signal is sent then, so that files of these rows stay. Let on_delete be CASCADE if there are any.",
        obj=field,
        id="asherah.W128",
    )
