"""The fields that options of a model name: by paths, conditions and expressions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db.models import F, Model, Q
from django.db.models.constants import LOOKUP_SEP

from django_asherah.fields.records import is_encrypted


def find_encrypted(model: type[Model], path: str) -> Any:
    """Return the encrypted field that ``path`` leads to from ``model``, unless it only asks whether it is NULL."""
    current: Any = model
    name, *rest = path.split(LOOKUP_SEP)
    while current is not None:
        try:
            field: Any = current._meta.get_field(name)
        except FieldDoesNotExist:
            return None
        if is_encrypted(field):
            return None if rest == ["isnull"] else field
        if not rest:
            return None
        current = field.related_model
        name, *rest = rest
    return None


def paths_in(items: Iterable[Any]) -> list[str]:
    """Return the field paths in names, conditions, expressions, or pairs of one of these and something else."""
    return sorted({path for item in items for path in _paths(item)})


def _paths(item: Any) -> Iterator[str]:
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
