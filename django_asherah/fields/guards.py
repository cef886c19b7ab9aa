"""What keeps the database from being asked to understand a record, or to store something that isn't one.

Django has no single place to refuse this. Lookups and transforms are refused by the field when a query is built;
expressions that are to be stored, when they are prepared; everything else (ordering, ``distinct``, grouping,
functions, comparisons between columns) when the column is compiled into SQL, by a look at the query around it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from django.core.exceptions import FieldDoesNotExist, FieldError
from django.db.models import Count, Q
from django.db.models.constants import LOOKUP_SEP
from django.db.models.expressions import (
    BaseExpression,
    Case,
    Col,
    Exists,
    ExpressionWrapper,
    F,
    Ref,
    Subquery,
    Value,
    When,
)
from django.db.models.functions import Cast, Coalesce
from django.db.models.lookups import Exact, IsNull
from django.db.models.sql import Query
from django.db.models.sql.where import WhereNode

from django_asherah.fields.interfaces import EncryptedField

_INSTEAD = (
    "Only isnull and exact=None work. Filter on another column, on a keyed hash that you keep beside it, or in Python."
)


def refuse_lookup(field: EncryptedField, name: str) -> FieldError:
    """Return the error for a lookup, transform or key path on ``field``."""
    return FieldError(f"{field.full_name} is encrypted: {name!r} can't look into it. {_INSTEAD}")


class EncryptedExact(Exact):
    """``exact``, of None alone, which Django turns into ``IS NULL``."""

    can_use_none_as_rhs = False

    def __init__(self, lhs: Any, rhs: Any) -> None:
        if rhs is not None:
            raise refuse_lookup(lhs.output_field, "exact")
        super().__init__(lhs, rhs)


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
    match expression:
        case Value():
            return expression.value is None or _same_kind(field, output_field(expression))
        case Col():
            return _holds_records_only(field, expression.target)
        case Case():
            return all(_yields_records(field, result) for result in (*_results(expression), expression.default))
        case Cast():
            return _same_kind(field, expression.output_field) and _yields_all(field, expression)
        case Coalesce() | ExpressionWrapper():
            return _yields_all(field, expression)
        case Subquery() if field.template is None:  # What another row holds may be under another key.
            return _yields_records(field, _only_column(expression.query))
    return False


def output_field(expression: Any) -> Any:
    """Return the field that says how to read what ``expression`` yields, or None if that is open."""
    return expression._output_field_or_none


def _yields_all(field: EncryptedField, expression: Any) -> bool:
    return all(_yields_records(field, source) for source in expression.get_source_expressions())


def _results(case: Case) -> list[Any]:
    return [when.result for when in case.cases]


def _only_column(query: Query) -> Any:
    columns = [*query.select, *query.annotation_select.values()]
    return columns[0] if len(columns) == 1 else None


def _holds_records_only(field: EncryptedField, other: Any) -> bool:
    return _same_kind(field, other) and not other.allow_plaintext


def _same_kind(field: EncryptedField, other: Any) -> bool:
    return getattr(other, "record_kind", None) == field.record_kind


def refuse_misuse(query: Query) -> None:
    """Refuse a query that wants the database to understand what is in an encrypted column.

    Raises:
        FieldError: it does.
    """
    for expression in query.annotations.values():
        _refuse_computing(expression)
    _refuse_comparing(query.where)
    _refuse_sorting(query)
    _refuse_grouping(query)


def _refuse_computing(expression: Any) -> None:
    """Refuse functions of encrypted columns; what only passes a value through may stay."""
    for source in expression.get_source_expressions():
        if source is None:
            continue
        if _is_encrypted_column(source) and not _passes_through(expression):
            raise FieldError(
                f"{source.target.full_name} is encrypted: {type(expression).__name__} would work on its "
                f"records. {_INSTEAD}"
            )
        if isinstance(source, WhereNode):
            _refuse_comparing(source)
        elif not isinstance(source, Query):
            _refuse_computing(source)


def _passes_through(expression: Any) -> bool:
    if isinstance(expression, Count):
        return not getattr(expression, "distinct", False)
    return isinstance(expression, Coalesce | Case | When | ExpressionWrapper | Subquery | IsNull | Ref)


def _refuse_comparing(where: Any) -> None:
    for child in where.children:
        if isinstance(child, WhereNode):
            _refuse_comparing(child)
        elif not isinstance(child, IsNull) and hasattr(child, "get_source_expressions"):
            column = next(_columns(child), None)
            if column is not None:
                raise refuse_lookup(
                    cast(EncryptedField, column.target), getattr(child, "lookup_name", type(child).__name__)
                )


def _columns(expression: Any) -> Iterator[Col]:
    """Yield the encrypted columns in an expression, but for those of its subqueries."""
    if _is_encrypted_column(expression):
        yield expression
    elif isinstance(expression, WhereNode):
        _refuse_comparing(expression)
    elif not isinstance(expression, Query | IsNull | Subquery | Count):
        for source in expression.get_source_expressions():
            if source is not None:
                yield from _columns(source)


def _refuse_sorting(query: Query) -> None:
    for item in _ordering(query):
        for field in _named_fields(query, item):
            if _is_encrypted(field):
                raise FieldError(
                    f"{field.full_name} is encrypted: its records have no useful order, and no two are equal. "
                    "Sort or compare in Python, or by another column."
                )


def _ordering(query: Query) -> Iterator[Any]:
    yield from query.distinct_fields
    if not query.extra_order_by:
        options = query.get_meta()
        yield from query.order_by or (options.ordering if query.default_ordering and options else None) or ()


def _named_fields(query: Query, item: Any) -> Iterator[Any]:
    """Yield the fields that an item of an ordering names: a string, an ``F()`` or any other expression."""
    if isinstance(item, Col):
        yield item.target
    elif isinstance(item, str | F):
        name = item.lstrip("-+") if isinstance(item, str) else getattr(item, "name", "")
        annotation = query.annotations.get(name)
        yield from [_field_at(query, name)] if annotation is None else _passed_through_fields(annotation)
    elif isinstance(item, Subquery):
        yield from _passed_through_fields(item)
    else:
        for source in _sources(item):
            yield from _named_fields(query, source)


def _sources(item: Any) -> list[Any]:
    """Return the expressions in an item of an ordering; of a condition, those that something is compared with."""
    if isinstance(item, Q):
        values = [child[1] if isinstance(child, tuple) else child for child in item.children]
        return [value for value in values if isinstance(value, Q | F | BaseExpression)]
    return [source for source in item.get_source_expressions() if source is not None]


def _passed_through_fields(annotation: Any) -> Iterator[Any]:
    """Yield the fields whose values an annotation passes through as they are."""
    if isinstance(annotation, Col):
        yield annotation.target
    elif isinstance(annotation, Exists):
        return  # True or False, whatever it looks at.
    elif isinstance(annotation, Subquery):
        yield from _passed_through_fields(annotation.query)
    elif isinstance(annotation, Query):  # What Django 6.1 resolves a Subquery to.
        yield from _passed_through_fields(_only_column(annotation))
    elif isinstance(annotation, Coalesce | ExpressionWrapper):
        for source in annotation.get_source_expressions():
            yield from _passed_through_fields(source)


def _field_at(query: Query, path: str) -> Any:
    try:
        return query.names_to_path(path.split(LOOKUP_SEP), query.get_meta())[1]
    except (FieldDoesNotExist, FieldError):
        return None


def _is_encrypted_column(expression: Any) -> bool:
    return isinstance(expression, Col) and _is_encrypted(expression.target)


def _is_encrypted(field: Any) -> bool:
    return getattr(field, "record_kind", None) is not None


def _refuse_grouping(query: Query) -> None:
    """Refuse ``distinct()`` and grouping by encrypted columns, unless a primary key keeps the rows apart anyway."""
    grouped = query.group_by if isinstance(query.group_by, tuple) else query.select if query.distinct else ()
    sources = [column.get_source_expressions()[0] if isinstance(column, Ref) else column for column in grouped]
    columns = [column for column in sources if isinstance(column, Col)]
    if any(column.target.primary_key for column in columns):
        return
    for field in (cast(EncryptedField, column.target) for column in columns if _is_encrypted_column(column)):
        raise FieldError(
            f"{field.full_name} is encrypted: no two of its records are equal, so rows can't be grouped by it or made "
            "distinct. Do it in Python."
        )
