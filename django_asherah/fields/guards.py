"""What keeps the database from being asked to understand a record, and records from being handed out as values.

Django has no single place to refuse this. Lookups and transforms are refused by the field when a query is built, and
expressions that are to be stored when they are prepared. Everything else is refused when a column is compiled into
SQL, by a walk over the whole statement: a record may be where it is selected, or passed on to there, and where only
NULL is asked for. Any other place is refused, whatever the expression is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

from django.core.exceptions import FieldDoesNotExist, FieldError
from django.db.models import Count, Model, Transform
from django.db.models.constants import LOOKUP_SEP
from django.db.models.expressions import Exists, F, Ref
from django.db.models.lookups import Exact, IsNull, Lookup
from django.db.models.sql import AggregateQuery, InsertQuery, Query, UpdateQuery
from django.db.models.sql.compiler import SQLCompiler
from django.db.models.sql.where import WhereNode

from django_asherah.fields.folding import refuse_grouping, refuse_set_operation
from django_asherah.fields.records import (
    RawValue,
    are_readable_as,
    columns_of,
    conditions_of,
    is_column,
    is_encrypted,
    may_stand_beside,
    output_field,
    parts_of,
    passes_on,
    results_of,
    source_of,
    sources_of,
)
from django_asherah.fields.refusals import (
    refuse_computing,
    refuse_lookup,
    refuse_mixing,
    refuse_raw,
    refuse_reading,
    refuse_sorting,
    refuse_storing,
)

_CHECKED = "django_asherah_checked"


class EncryptedExact(Exact):
    """``exact``, of None alone, which Django turns into ``IS NULL``."""

    can_use_none_as_rhs = False

    def __init__(self, lhs: Any, rhs: Any) -> None:
        if rhs is not None:
            raise refuse_lookup(lhs.output_field, "exact")
        super().__init__(lhs, rhs)


class RefusedTransform(Transform):
    """A key path or another transform, refused where it is used.

    Not where it is made: there, Django takes a ``FieldError`` for a name that it does not know.
    """

    def __init__(self, name: str, lhs: Any) -> None:
        super().__init__(lhs)
        self.lookup_name = name

    def get_lookup(self, lookup: str) -> Any:
        """Refuse."""
        raise refuse_lookup(self.lhs.output_field, self.lookup_name)

    def get_transform(self, lookup_name: str) -> Any:
        """Return what refuses to be used, too."""
        return partial(RefusedTransform, self.lookup_name)

    def as_sql(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse."""
        raise refuse_lookup(self.lhs.output_field, self.lookup_name)


def refuse_misuse(compiler: Any) -> None:
    """Refuse a statement that wants the database to understand records, or hands them out as something else.

    Args:
        compiler: compiles the statement, or a part of it.

    Raises:
        FieldError: it does.
    """
    if compiler.__dict__.get(_CHECKED) is compiler.query:
        return
    for each in (compiler, *_enclosing(compiler)):
        if each.__dict__.get(_CHECKED) is not each.query:
            _check(each.query)
            each.__dict__[_CHECKED] = each.query


def _enclosing(compiler: Any) -> Iterator[SQLCompiler]:
    """Yield the compilers of the statements that this one's is a part of.

    Django tells a subquery, or a part of a union, nothing of where it stands. What compiles the whole is on the stack.
    """
    frame = sys._getframe(2)
    while frame is not None and frame.f_code.co_name != "execute_sql":
        if frame.f_code.co_name == "as_sql":
            found = frame.f_locals.get("self")
            if isinstance(found, SQLCompiler) and found is not compiler:
                yield found
        frame = frame.f_back  # type: ignore[assignment]


def _check(query: Query) -> None:
    if isinstance(query, AggregateQuery):
        _check(query.inner_query)
    if isinstance(query, UpdateQuery):
        assigned: Any = getattr(query, "values", None) or ()
        _refuse_storing(query, [(field, value) for field, _, value in assigned])
    if isinstance(query, InsertQuery):
        _refuse_storing(query, _inserted(query))
        return
    for annotation in query.annotations.values():
        if not isinstance(annotation, RawValue):
            _yielded(annotation)
    _require_none(query.where)
    for join in query.alias_map.values():
        if relation := getattr(join, "filtered_relation", None):
            _require_none(relation.resolved_condition)
    if query.combinator:
        for part in parts_of(query):
            _check(part)
        refuse_set_operation(query)
    _refuse_sorting(query)
    refuse_grouping(query)


def _yielded(expression: Any) -> list[Any]:  # noqa: PLR0911 - one line a kind of expression
    """Return the fields whose records an expression may yield; refuse whatever else it does with records."""
    if expression is None or isinstance(expression, str):
        return []
    if is_column(expression):
        return [expression.target if hasattr(expression, "target") else output_field(expression)]
    if isinstance(expression, RawValue):
        raise refuse_raw(expression)
    if isinstance(expression, Ref):
        return _yielded(source_of(expression))
    if isinstance(expression, Query):
        return _yielded_by_query(expression)
    if passes_on(expression):
        return _passed_on(expression)
    if not _needs_no_value(expression):
        _require_none(expression)
        return []
    for source in sources_of(expression):
        _yielded(source)
    return []


def _yielded_by_query(query: Query) -> list[Any]:
    _check(query)
    # All columns of a row are no value of any kind.
    selected = [column for part in parts_of(query) if not part.default_cols for column in columns_of(part)]
    return [field for column in selected for field in _yielded(column)]


def _passed_on(expression: Any) -> list[Any]:
    for condition in conditions_of(expression):
        if fields := _yielded(condition):
            raise refuse_lookup(fields[0], "When")
    results = [(result, _yielded(result)) for result in results_of(expression)]
    fields = [field for _, yielded in results for field in yielded]
    if not fields:
        return []
    for result, yielded in results:
        if not yielded and not may_stand_beside(fields[0], result):
            raise refuse_mixing(fields[0], expression)
    if not are_readable_as(fields, output_field(expression)):
        raise refuse_reading(fields[0], expression)
    return fields


def _needs_no_value(expression: Any) -> bool:
    if type(expression) is Count:
        return not getattr(expression, "distinct", False)
    return isinstance(expression, Exists) or type(expression) is IsNull


def _require_none(expression: Any) -> None:
    """Refuse an expression or a condition that gets records to work on."""
    sources = expression.children if isinstance(expression, WhereNode) else sources_of(expression)
    for source in sources:
        if isinstance(source, WhereNode):
            _require_none(source)
        elif fields := _yielded(source):
            if isinstance(expression, Lookup | RefusedTransform):
                raise refuse_lookup(fields[0], str(getattr(expression, "lookup_name", type(expression).__name__)))
            raise refuse_computing(fields[0], expression)


def _inserted(query: InsertQuery) -> Iterator[tuple[Any, Any]]:
    for field in query.fields:
        for each in query.objs:
            yield field, vars(each).get(field.attname) if isinstance(each, Model) else each


def _refuse_storing(query: Query, assigned: Any) -> None:
    for field, value in assigned:
        if not hasattr(value, "resolve_expression"):
            continue
        resolved = value.resolve_expression(query.clone(), allow_joins=False, for_save=True)
        if (fields := _yielded(resolved)) and not is_encrypted(field):
            raise refuse_storing(fields[0], field)


def _refuse_sorting(query: Query) -> None:
    for item in _ordering(query):
        for field in _named_fields(query, item):
            if is_encrypted(field):
                raise refuse_sorting(field)


def _ordering(query: Query) -> Iterator[Any]:
    yield from query.distinct_fields
    if not query.extra_order_by:
        options = query.get_meta()
        yield from query.order_by or (options.ordering if query.default_ordering and options else None) or ()


def _named_fields(query: Query, item: Any) -> list[Any]:
    """Return the fields by whose records an item of an ordering sorts: a string, an ``F()`` or any other expression."""
    if isinstance(item, str | F):
        name = item.lstrip("-+") if isinstance(item, str) else getattr(item, "name", "")
        if name in query.annotations:
            return _yielded(query.annotations[name])
        return list(_fields_at(query, name))
    if query.combinator:  # It names columns of its parts.
        return [field for source in item.get_source_expressions() if source for field in _named_fields(query, source)]
    try:
        resolved = item.resolve_expression(query.clone(), allow_joins=True, reuse=None)
    except FieldError:  # Django raises it again, unless it names what extra() selects.
        return []
    # The outermost says in which direction.
    sources = sources_of(resolved) if hasattr(resolved, "descending") else [resolved]
    return [field for source in sources for field in _yielded(source)]


def _fields_at(query: Query, path: str) -> Iterator[Any]:
    """Yield the field at the end of a path, or those that Django sorts by instead: a related model's own ordering."""
    try:
        field = query.names_to_path(path.split(LOOKUP_SEP), query.get_meta())[1]
    except (FieldDoesNotExist, FieldError):
        return
    yield field
    name = path.rsplit(LOOKUP_SEP, maxsplit=1)[-1]
    related = getattr(field, "related_model", None) if field.is_relation else None
    if related and name not in ("pk", getattr(field, "attname", None)):
        for item in related._meta.ordering:
            if isinstance(item, str) and item.lstrip("-+") not in ("pk", "?"):
                yield from _fields_at(query, f"{path}{LOOKUP_SEP}{item.lstrip('-+')}")
