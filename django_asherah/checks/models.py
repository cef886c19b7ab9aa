"""Checks of model options that would make the database look into encrypted fields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error, Tags, register
from django.db.models import Model

from django_asherah.checks.wrappers import check_wrapper
from django_asherah.fields.paths import find_encrypted, paths_in


@register(Tags.models)
def check_models(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report orderings, constraints and indexes that name encrypted fields, and fields that are made of them."""
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
            yield from refuse(model, field, "E131", f"the object id of {field.name!r}", [key])


def _check_field(model: type[Model], field: Any) -> Iterator[CheckMessage]:
    for option in ("unique_for_date", "unique_for_month", "unique_for_year"):
        other = getattr(field, option, None)
        if other:
            yield from refuse(model, field, "E109", f"{option!r} of {field.name!r}", [field.name, other])
    if field.generated:
        yield from refuse(model, field, "E110", f"the expression of {field.name!r}", [field.expression])
    yield from check_wrapper(field)


def refuse(model: type[Model], owner: object, id: str, option: str, items: Iterable[Any]) -> Iterator[CheckMessage]:
    """Yield an error for each encrypted field that ``items`` (names, paths, expressions) of an option lead to."""
    for path in paths_in(items):
        field = find_encrypted(model, path)
        if field is not None:
            yield Error(
                f"{option} names the encrypted field {field.full_name}.",
                hint="The database sees only random-looking records: it can't sort, compare or search them.",
                obj=owner,
                id=f"asherah.{id}",
            )


def _parts(option: Any) -> Iterator[Any]:
    """Yield what a constraint or an index is made of."""
    for name in ("fields", "include", "expressions"):
        yield from getattr(option, name, None) or ()
    yield getattr(option, "condition", None)
