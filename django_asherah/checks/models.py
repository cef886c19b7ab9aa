"""Checks of model options that would make the database look into encrypted fields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.exceptions import FieldDoesNotExist
from django.db.models import F, Model, Q
from django.db.models.constants import LOOKUP_SEP

from django_asherah.fields import EncryptedFieldMixin


@register(Tags.models)
def check_models(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report orderings, constraints and indexes that name encrypted fields."""
    configs = apps.get_app_configs() if app_configs is None else app_configs
    return [message for config in configs for model in config.get_models() for message in _check_model(model)]


def _check_model(model: type[Model]) -> Iterator[CheckMessage]:
    options = model._meta
    latest_by = options.get_latest_by or ()
    latest = [latest_by] if isinstance(latest_by, str) else latest_by
    yield from refuse(model, model, "E105", "'ordering' or 'get_latest_by'", [*(options.ordering or ()), *latest])
    for names in options.unique_together:
        yield from refuse(model, model, "E106", "'unique_together'", names)
    for constraint in options.constraints:
        yield from refuse(model, model, "E107", f"constraint {constraint.name!r}", _parts(constraint))
    for index in options.indexes:
        yield from refuse(model, model, "E108", f"index {index.name!r}", _parts(index))
    for field in options.local_fields:
        yield from _check_field(model, field)
    for field in options.private_fields:
        if key := getattr(field, "fk_field", None):  # Generic relations find no row by a record, and say nothing.
            yield from refuse(model, field, "E118", f"the object id of {field.name!r}", [key])


def _check_field(model: type[Model], field: Any) -> Iterator[CheckMessage]:
    for option in ("unique_for_date", "unique_for_month", "unique_for_year"):
        other = getattr(field, option, None)
        if other:
            yield from refuse(model, field, "E109", f"{option!r} of {field.name!r}", [field.name, other])
    if field.generated:
        yield from refuse(model, field, "E110", f"the expression of {field.name!r}", [field.expression])


def refuse(model: type[Model], owner: object, id: str, option: str, items: Iterable[Any]) -> Iterator[CheckMessage]:
    """Yield an error for each encrypted field that ``items`` (names, paths, expressions) of an option lead to."""
    for path in sorted({path for item in items for path in _paths(item)}):
        field = find_encrypted(model, path)
        if field is not None:
            yield Error(
                f"{option} names the encrypted field {field.full_name}.",
                hint="The database sees only random-looking records: it can't sort, compare or search them.",
                obj=owner,
                id=f"asherah.{id}",
            )


def find_encrypted(model: type[Model], path: str) -> EncryptedFieldMixin | None:
    """Return the encrypted field that ``path`` leads to from ``model``, unless it only asks whether it is NULL."""
    current: Any = model
    name, *rest = path.split(LOOKUP_SEP)
    while current is not None:
        try:
            field: Any = current._meta.get_field(name)
        except FieldDoesNotExist:
            return None
        if isinstance(field, EncryptedFieldMixin):
            return None if rest == ["isnull"] else field
        if not rest:
            return None
        current = field.related_model
        name, *rest = rest
    return None


def _parts(option: Any) -> Iterator[Any]:
    """Yield what a constraint or an index is made of."""
    for name in ("fields", "include", "expressions"):
        yield from getattr(option, name, None) or ()
    yield getattr(option, "condition", None)


def _paths(item: Any) -> Iterator[str]:
    """Yield the field paths in a name, a Q, an expression, or a pair of a name or expression and something else."""
    match item:
        case str():
            yield item.lstrip("-+")
        case F():
            yield item.name  # type: ignore[attr-defined]
        case Q():
            for child in item.children:
                yield from _conditions(child)
        case (first, *_):
            yield from _paths(first)
        case _ if hasattr(item, "get_source_expressions"):
            for source in item.get_source_expressions():
                yield from _paths(source)


def _conditions(child: Any) -> Iterator[str]:
    if not isinstance(child, tuple):
        yield from _paths(child)
        return
    path, value = child
    if value is not None:
        yield path
    if not isinstance(value, str | tuple):
        yield from _paths(value)
