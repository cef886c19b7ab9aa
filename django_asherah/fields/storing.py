"""What may be stored in an encrypted column without being a value: expressions that yield nothing but its records."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import FieldError
from django.db.models.expressions import Case, Col, ExpressionWrapper, Subquery, Value
from django.db.models.functions import Cast, Coalesce
from django.db.models.sql import Query

from django_asherah.fields.interfaces import EncryptedField
from django_asherah.fields.records import columns_of, output_field, parts_of, passes_on, results_of


def require_records(field: EncryptedField, expression: Any) -> None:
    """Let an expression be stored only if all that it can yield is NULL or a record of the same kind of field.

    Raises:
        FieldError: it could yield something else.
    """
    if not _yields_records(field, expression):
        raise FieldError(
            f"{field.full_name} is encrypted: the database would store what {type(expression).__name__} computes, and "
            "not a record. Assign a plain value, an F() of an encrypted field of the same kind and partition (and "
            "without allow_plaintext), or a Value() with such an output_field."
        )


def _yields_records(field: EncryptedField, expression: Any) -> bool:  # noqa: PLR0911 - one line a kind of expression
    if not isinstance(expression, Value | Col) and not passes_on(expression):
        return False
    match expression:
        case Value():
            return expression.value is None or _is_same_kind(field, output_field(expression))
        case Col():
            column: Any = expression.target
            return _is_same_kind(field, column) and not column.allow_plaintext
        case Cast() if not _is_same_kind(field, expression.output_field):
            return False
        case Case() | Cast() | Coalesce() | ExpressionWrapper():
            return all(_yields_records(field, result) for result in results_of(expression))
        case Subquery() if field.template is None:  # What another row holds may be under another key.
            return _yields_records(field, expression.query)
        case Query() if field.template is None:
            parts = [columns_of(part) for part in parts_of(expression)]
            return all(len(columns) == 1 and _yields_records(field, columns[0]) for columns in parts)
    return False


def _is_same_kind(field: EncryptedField, other: Any) -> bool:
    return getattr(other, "record_kind", None) == field.record_kind
