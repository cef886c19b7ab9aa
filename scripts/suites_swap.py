"""Puts encrypted fields in the place of plain ones in the models of Django's suites, and counts them.

The rule: a field that stands in the body of a suite's model, whose class is one of Django's that we have a twin of, is
swapped if our fields' checks allow its options (see ``asherah.E101`` to ``E104``) and nothing in the model's ``Meta``
sorts, indexes, constrains or looks by it, nor is it the object id of a ``GenericForeignKey``.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any, cast

from django.db import models
from django.db.models.base import ModelBase
from django.db.models.fields import NOT_PROVIDED

import django_asherah.fields

PREFIX = "Encrypted"

TWINS: dict[type[models.Field[Any, Any]], type[models.Field[Any, Any]]] = {
    getattr(models, name.removeprefix(PREFIX)): getattr(django_asherah.fields, name)
    for name in django_asherah.fields.__all__
    if name.startswith(PREFIX) and hasattr(models, name.removeprefix(PREFIX))
}

swapped: Counter[str] = Counter()
"""How many fields of each label were swapped."""

_BY_DATE = ("unique_for_date", "unique_for_month", "unique_for_year")
_NOT_OURS = ("primary_key", "unique", "db_index", "db_collation", *_BY_DATE)
_META = ("ordering", "indexes", "constraints", "unique_together", "get_latest_by")


def swap_fields(suites: Path, kinds: set[str]) -> None:
    """Swap the fields of ``kinds``, as ``TextField``, in each model that a module in ``suites`` defines."""
    plain_new = ModelBase.__new__

    def new(cls: Any, name: str, bases: Any, attrs: dict[str, Any], **kwargs: Any) -> Any:
        module = sys.modules.get(attrs.get("__module__", ""))
        if module is not None and suites in Path(getattr(module, "__file__", None) or "/").parents:
            attrs = _with_twins(module.__name__.partition(".")[0], attrs, kinds)
        return plain_new(cls, name, bases, attrs, **kwargs)

    ModelBase.__new__ = new  # type: ignore[method-assign]


def _with_twins(label: str, attrs: dict[str, Any], kinds: set[str]) -> dict[str, Any]:
    used = _used_names(attrs)
    result = {}
    for name, value in attrs.items():
        if type(value) in TWINS and type(value).__name__ in kinds and _may_be_encrypted(value) and name not in used:
            result[name] = _twin(value)
            swapped[label] += 1
        else:
            result[name] = value
    return result


def _used_names(attrs: dict[str, Any]) -> set[str]:
    """Return every word in what the database is to understand: options of ``Meta``, and generated columns."""
    used = [getattr(attrs.get("Meta"), option, None) for option in _META]
    used += [getattr(value, option, None) for value in attrs.values() for option in (*_BY_DATE, "fk_field")]
    used += [cast(Any, value).expression for value in attrs.values() if isinstance(value, models.GeneratedField)]
    return {word for path in re.findall(r"\w+", repr(used)) for word in (path, *path.split("__"))}


def _may_be_encrypted(field: Any) -> bool:
    has_default = getattr(field, "db_default", NOT_PROVIDED) is not NOT_PROVIDED
    return not has_default and not any(getattr(field, option, None) for option in _NOT_OURS)


def _twin(field: Any) -> Any:
    name, _, args, kwargs = field.deconstruct()
    twin = TWINS[type(field)](*args, **{**kwargs, "name": name})
    twin.creation_counter = field.creation_counter
    return twin
