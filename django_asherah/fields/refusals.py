"""What is said of a query that would have the database understand a record, or hand one out."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import FieldError

_INSTEAD = (
    "Only isnull and exact=None work. Filter on another column, on a keyed hash that you keep beside it, or in Python."
)


def refuse_lookup(field: Any, name: str) -> FieldError:
    """Return the error for a lookup, transform or key path on ``field``, or a comparison with it."""
    return FieldError(f"{field.full_name} is encrypted: {name!r} can't look into it. {_INSTEAD}")


def refuse_validating(field: Any, name: str) -> FieldError:
    """Return the error for a constraint that looks into ``field``."""
    return FieldError(
        f"{field.full_name} is encrypted: constraint {name!r} can't look into it. Only whether it is NULL can be "
        "asked: remove the constraint, and give the field a validator or the model a clean()."
    )


def refuse_db_default(field: Any) -> FieldError:
    """Return the error for a ``db_default`` of ``field``."""
    return FieldError(f"{field.full_name} is encrypted: the database would store its db_default. Use default instead")


def refuse_computing(field: Any, expression: Any) -> FieldError:
    """Return the error for an expression that would work on records of ``field``."""
    return FieldError(
        f"{field.full_name} is encrypted: {type(expression).__name__} would work on its records. {_INSTEAD}"
    )


def refuse_reading(field: Any, expression: Any) -> FieldError:
    """Return the error for an expression that would read records of ``field`` as something else."""
    return FieldError(
        f"{field.full_name} is encrypted: {type(expression).__name__} would hand out its records as another kind of "
        f"value. Give it output_field={_same_field(field)}."
    )


def refuse_mixing(field: Any, expression: Any) -> FieldError:
    """Return the error for an expression that yields records of ``field``, and something else at other times."""
    return FieldError(
        f"{field.full_name} is encrypted: {type(expression).__name__} would mix its records with what is none. Besides "
        "encrypted columns of the same kind and partition, only None, a Value() with "
        f"output_field={_same_field(field)} and, in a text column, a Value() of a str may stand there."
    )


def refuse_raw(expression: Any) -> FieldError:
    """Return the error for ``raw_value()`` anywhere but where a query selects it."""
    name = expression.get_source_expressions()[0].target.full_name
    return FieldError(f"{name} is encrypted: raw_value() may only be selected, by itself, and not in a subquery.")


def refuse_storing(field: Any, column: Any) -> FieldError:
    """Return the error for a record of ``field`` in a column that is not encrypted."""
    return FieldError(
        f"{field.full_name} is encrypted: {column} would store its record, and not the value. Read the instances, and "
        "save what they hold."
    )


def refuse_sorting(field: Any) -> FieldError:
    """Return the error for an ordering by ``field``."""
    return FieldError(
        f"{field.full_name} is encrypted: its records have no useful order, and no two are equal. "
        "Sort or compare in Python, or by another column."
    )


def refuse_folding(field: Any) -> FieldError:
    """Return the error for rows that are told apart by their records of ``field``."""
    return FieldError(
        f"{field.full_name} is encrypted: no two of its records are equal, so rows can't be grouped by it or made "
        f"distinct. Select the primary key of {field.model._meta.label}, too, or do it in Python."
    )


def refuse_combining(field: Any, combinator: str) -> FieldError:
    """Return the error for a set operation that would compare records of ``field``."""
    return FieldError(
        f"{field.full_name} is encrypted: {combinator}() would compare its records, of which no two are equal. Use "
        f"union(…, all=True), select the primary key of {field.model._meta.label}, too, or do it in Python."
    )


def refuse_union(field: Any) -> FieldError:
    """Return the error for a ``union()`` that would read records of ``field`` as what the first query selects there."""
    return FieldError(
        f"{field.full_name} is encrypted: each query of a union() must select an encrypted column of the same kind and "
        "partition in its place."
    )


def _same_field(field: Any) -> str:
    model = getattr(field, "model", None)
    return f"{model.__name__}._meta.get_field({field.name!r})" if model else f"{type(field).__name__}(…)"
