"""Expressions that yield records: which these are, and what else they may yield."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

from django.core.exceptions import FieldError
from django.db.models.expressions import Case, Col, ExpressionWrapper, Ref, Subquery, Value, When
from django.db.models.functions import Cast, Coalesce
from django.db.models.sql import Query

_PASSING = frozenset({Case, Cast, Coalesce, ExpressionWrapper, Query, Subquery})
"""What yields one of the values in it as it is. A subclass may do anything with them."""


_NO_EXPRESSIONS = frozenset({int, str, UUID})
"""What long lists hold."""


class RawValue(ExpressionWrapper):
    """A column as the database holds it: a record, and not its value. It may only be selected."""


def is_encrypted(field: Any) -> bool:
    """Tell whether a field is an encrypted one."""
    return getattr(field, "record_kind", None) is not None


def is_column(expression: Any) -> bool:
    """Tell whether an expression is an encrypted column, or a value that is sealed for one."""
    return is_encrypted(expression.target) if isinstance(expression, Col) else is_sealed_value(expression)


def is_sealed_value(expression: Any) -> bool:
    """Tell whether an expression is a value that is sealed before the database sees it."""
    return isinstance(expression, Value) and expression.value is not None and is_encrypted(output_field(expression))


def output_field(expression: Any) -> Any:
    """Return the field that says how to read what ``expression`` yields, or None if that is open."""
    try:
        return expression._output_field_or_none
    except (AttributeError, FieldError):  # Sources of several kinds; a query of several columns.
        return None


def passes_on(expression: Any) -> bool:
    """Tell whether an expression yields one of its results as it is."""
    return type(expression) in _PASSING


def results_of(expression: Any) -> list[Any]:
    """Return what an expression that passes values on may yield."""
    match expression:
        case Case():
            return [*(when.result for when in expression.cases), expression.default]
        case Query():
            columns = columns_of(expression)
            return columns if len(columns) == 1 else []
        case _:
            return sources_of(expression)


def sources_of(expression: Any) -> list[Any]:
    """Return the expressions that an expression is made of; for a lookup also those in a list on its right."""
    get_sources = getattr(expression, "get_source_expressions", None)
    sources = [source for source in get_sources() if source is not None] if get_sources else []
    right = getattr(expression, "rhs", None)
    if isinstance(right, list | tuple | set | frozenset) and not _NO_EXPRESSIONS.issuperset(map(type, right)):
        sources += [each for each in right if hasattr(each, "as_sql")]
    return sources


def source_of(ref: Ref) -> Any:
    """Return what a name stands for: that of an annotation, or that of an inner query's column in an outer one."""
    (source,) = ref.get_source_expressions()
    return source


def columns_of(query: Query) -> list[Any]:
    """Return what a query selects, in order, without what ``select_related()`` adds."""
    select = default_columns(query) if query.default_cols else [*query.select]
    if query.selected is None:
        # What extra() selects is SQL of the caller's own.
        return [*map(Value, query.extra_select), *select, *query.annotation_select.values()]
    chosen = query.selected.values()
    return [
        query.annotations[each] if isinstance(each, str) else select[each] if isinstance(each, int) else each
        for each in chosen
    ]


def parts_of(query: Query) -> list[Query]:
    """Return the queries of a set operation, or the only one, with the columns that the whole was told to select."""
    return [_told_to_select(query.selected, part) for part in query.combined_queries] or [query]


def _told_to_select(selected: Any, part: Query) -> Query:
    if selected is not None and part.selected is None:
        part = part.clone()
        part.set_values(selected)
    return part


def default_columns(query: Query) -> list[Any]:
    """Return the columns that make an instance."""
    mask: Any = query.get_select_mask()
    aliases = {table.table_name: alias for alias, table in reversed(query.alias_map.items())}
    fields = [each for each in query.get_meta().concrete_fields if not mask or each in mask]
    tables = [each.model._meta.db_table for each in fields]
    return [each.get_col(aliases.get(table, table)) for each, table in zip(fields, tables, strict=True)]


def encrypted_columns(expression: Any) -> Iterator[Any]:
    """Yield the encrypted columns whose records an expression may yield, but for those of subqueries."""
    if isinstance(expression, Col):
        if is_column(expression):
            yield expression
    elif isinstance(expression, RawValue) or (passes_on(expression) and not isinstance(expression, Query)):
        for result in results_of(expression):
            yield from encrypted_columns(result)
    elif isinstance(expression, Ref):
        yield from encrypted_columns(source_of(expression))


def row_of(expression: Any) -> str | None:
    """Return the alias of the table whose row holds what an expression yields; None if it may be one of several."""
    aliases = {column.alias for column in encrypted_columns(expression)}
    return aliases.pop() if len(aliases) == 1 and not any(subqueries(expression)) else None


def subqueries(expression: Any) -> Iterator[Query]:
    """Yield the subqueries whose records an expression may yield."""
    if isinstance(expression, Query):
        yield expression
    elif isinstance(expression, Ref):
        yield from subqueries(source_of(expression))
    elif passes_on(expression):
        for result in results_of(expression):
            yield from subqueries(result)


def literals_of(expression: Any) -> frozenset[str]:
    """Return the texts that an expression may yield instead of a record."""
    return frozenset(_literals(expression)) if passes_on(expression) else frozenset()


def _literals(expression: Any) -> Iterator[str]:
    if isinstance(expression, Value):
        if isinstance(expression.value, str) and not is_sealed_value(expression):
            yield expression.value
    elif passes_on(expression):
        for result in results_of(expression):
            yield from _literals(result)


def may_stand_beside(field: Any, expression: Any) -> bool:
    """Tell whether what yields no record may be yielded where others are records of ``field``."""
    if isinstance(expression, Value):
        return expression.value is None or (isinstance(expression.value, str) and not field.format.is_binary)
    return type(expression) in {Case, Coalesce, ExpressionWrapper} and all(
        may_stand_beside(field, result) for result in results_of(expression)
    )


def are_readable_as(fields: Iterable[Any], reader: Any) -> bool:
    """Tell whether ``reader`` reads the records, and the plain values, of all these fields."""
    return is_encrypted(reader) and all(
        field.record_kind == reader.record_kind and (reader.allow_plaintext or not field.allow_plaintext)
        for field in fields
    )


def conditions_of(expression: Any) -> list[Any]:
    """Return what decides which result an expression yields."""
    if not isinstance(expression, Case):
        return []
    return [when.condition for when in expression.cases if isinstance(when, When)]
