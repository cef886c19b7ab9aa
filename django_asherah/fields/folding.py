"""Rows that a query makes one of: groups, ``distinct()`` and set operations.

No two records are equal, even of equal values. So an encrypted column must not decide which rows are the same. It does
not where its own row is kept apart anyway, by what else the query groups by: then each group has one row of the
column's table, and one record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.core.exceptions import FieldError
from django.db.models.expressions import Col, ColPairs, Ref
from django.db.models.sql import Query
from django.db.models.sql.constants import INNER

from django_asherah.fields.records import (
    columns_of,
    default_columns,
    encrypted_columns,
    is_encrypted,
    parts_of,
    source_of,
    subqueries,
)
from django_asherah.fields.refusals import refuse_combining, refuse_folding, refuse_union

_Known = set[tuple[Any, Any]]
"""Columns that have one value in each group, by alias and name."""


def refuse_grouping(query: Query) -> None:
    """Refuse to group by encrypted columns, or to make them distinct, unless their own rows are kept apart.

    Raises:
        FieldError: their records would decide which rows are one.
    """
    grouped = list(_grouped(query))
    columns = [column for each in grouped for column in encrypted_columns(each)]
    nested = [each for expression in grouped for each in subqueries(expression) if _yields_records(each)]
    if not columns and not nested:
        return
    known = _known(query, grouped)
    for column in columns:
        if (column.alias, column.target.column) not in known:
            raise refuse_folding(column.target)
    for each in nested:
        if not all((outer.alias, outer.target.column) in known for outer in each.get_external_cols()):
            raise refuse_folding(each.output_field)


def refuse_set_operation(query: Query) -> None:
    """Refuse a set operation that compares records, or reads them as what they are not.

    Raises:
        FieldError: it does.
    """
    parts = parts_of(query)
    columns = [columns_of(part) for part in parts]
    is_all = query.combinator == "union" and query.combinator_all
    for place, each in enumerate(zip(*columns, strict=False)):
        kinds = [_record_kinds(expression) for expression in each]
        field = next((field for fields in kinds for field in fields), None)
        if field is None:
            continue
        if any(not _reads_alike(kinds[0], fields, expression) for fields, expression in zip(kinds, each, strict=True)):
            raise refuse_union(field)
        if not is_all and not _are_rows_of_one_table(parts, columns, place):
            raise refuse_combining(field, str(query.combinator))


def _record_kinds(expression: Any) -> list[Any]:
    fields = [column.target for column in encrypted_columns(expression)]
    return fields + [each.output_field for each in subqueries(expression) if _yields_records(each)]


def _reads_alike(first: list[Any], fields: list[Any], expression: Any) -> bool:
    if not fields:
        return bool(first) and getattr(expression, "value", expression) is None
    return {field.record_kind for field in first} == {field.record_kind for field in fields} and isinstance(
        expression, Col
    )


def _are_rows_of_one_table(parts: list[Query], columns: list[list[Any]], place: int) -> bool:
    """Tell whether all parts select the same column of one table, and its row is kept apart in the same way."""
    if len({len(each) for each in columns}) != 1 or len({each[place].target for each in columns}) != 1:
        return False
    alike = [
        [selected[at] for selected in columns]
        for at in range(len(columns[0]))
        if len({getattr(selected[at], "target", selected[at]) for selected in columns}) == 1
    ]
    return all(
        _is_kept_apart(part, [each[number] for each in alike], columns[number][place])
        for number, part in enumerate(parts)
    )


def _is_kept_apart(query: Query, grouped: list[Any], column: Any) -> bool:
    return (column.alias, column.target.column) in _known(query, grouped)


def _yields_records(query: Query) -> bool:
    try:
        return is_encrypted(query.output_field)
    except (AttributeError, FieldError):
        return False


def _grouped(query: Query) -> Iterator[Any]:
    """Yield what decides which rows of a query are one."""
    if query.group_by is None and not query.distinct:
        return
    # The rows of its own instances are kept apart by their primary key.
    selected = query.annotation_select.values() if query.default_cols else columns_of(query)
    if query.group_by is not None:
        if query.group_by is not True:
            yield from query.group_by
        yield from (each for each in selected if not getattr(each, "contains_aggregate", False))
    elif query.distinct and not query.distinct_fields:
        yield from selected


def _known(query: Query, grouped: Iterable[Any]) -> _Known:
    """Return the columns that have one value in each group: what is grouped by, and what follows from that."""
    known: _Known = set()
    if query.default_cols:  # The primary key is always among them, and says all the others.
        known |= {(column.alias, column.target.column) for column in default_columns(query)}
    for expression in grouped:
        source = source_of(expression) if isinstance(expression, Ref) else expression
        for column in source.get_cols() if isinstance(source, ColPairs) else [source]:
            if isinstance(column, Col) and not is_encrypted(column.target):
                known.add((column.alias, column.target.column))
    size = -1
    while size != len(known):
        size = len(known)
        for alias, join in query.alias_map.items():
            pairs = getattr(join, "join_cols", ())
            here = {(alias, right) for _, right in pairs}
            there = {(join.parent_alias, left) for left, _ in pairs}
            if there <= known and (join.join_type == INNER or not getattr(join, "filtered_relation", None)):
                known |= here
            if here <= known and join.join_type == INNER:  # Otherwise it may be NULL for many rows of the other.
                known |= there
        known |= _rows(query, known)
    return known


def _rows(query: Query, known: _Known) -> _Known:
    """Return all columns of the rows of which something unique is known."""
    columns: _Known = set()
    for alias, model in _models(query):
        names = {name for each, name in known if each == alias}
        if any(key <= names for key in _unique_keys(model)):
            columns |= {(alias, field.column) for field in model._meta.local_concrete_fields}
    return columns


def _models(query: Query) -> Iterator[tuple[str, Any]]:
    for alias, table in query.alias_map.items():
        field = getattr(table, "join_field", None)
        model: Any = field.related_model if field else query.model
        for each in (model, *model._meta.all_parents) if model else ():
            if each._meta.db_table == table.table_name:
                yield alias, each._meta.concrete_model
                break
    if not query.alias_map and query.model:
        for each in (query.model, *query.model._meta.all_parents):
            yield each._meta.db_table, each._meta.concrete_model


def _unique_keys(model: Any) -> Iterator[set[str]]:
    """Yield the sets of columns in which no two rows agree. Where one may be NULL, many rows may have that."""
    options = model._meta
    yield {field.column for field in options.pk_fields}
    sets = [(field.name,) for field in options.local_concrete_fields if field.unique]
    sets += [tuple(names) for names in options.unique_together]
    sets += [each.fields for each in options.total_unique_constraints]
    for names in sets:
        fields = [options.get_field(name) for name in names]
        if not any(field.null for field in fields):
            yield {field.column for field in fields}
