"""Constraints as ``full_clean()`` evaluates them: Django passes over one that it can't, as if the row kept to it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from typing import Any

from django.db import DEFAULT_DB_ALIAS
from django.db.models import BaseConstraint, Model

from django_asherah.fields.paths import find_encrypted, paths_in
from django_asherah.fields.refusals import refuse_validating


def guard_constraints(model: type[Model]) -> None:
    """Let the constraints of a model with encrypted fields be refused when they are evaluated, if they look into one.

    A check says so beforehand (``asherah.E107``), but can be silenced.
    """
    for constraint in model._meta.constraints:
        if "validate" not in vars(constraint):
            constraint.validate = partial(_validate, constraint)  # type: ignore[method-assign]


def _validate(
    constraint: BaseConstraint,
    model: type[Model],
    instance: Model,
    exclude: Collection[str] | None = None,
    using: str = DEFAULT_DB_ALIAS,
) -> None:
    """Evaluate a constraint.

    Raises:
        FieldError: it looks into an encrypted field that is not in ``exclude``.
        ValidationError: the row does not keep to it.
    """
    for path in paths_in(_evaluated(constraint)):
        field = find_encrypted(model, path)
        if field is not None and field.name not in (exclude or ()):
            raise refuse_validating(field, constraint.name)
    type(constraint).validate(constraint, model, instance, exclude=exclude, using=using)  # type: ignore[arg-type]


def _evaluated(constraint: Any) -> Iterator[Any]:
    for name in ("fields", "expressions"):
        yield from getattr(constraint, name, None) or ()
    yield getattr(constraint, "condition", None)
