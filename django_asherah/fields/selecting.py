"""An encrypted column in a query: what a row holds becomes a value only where it doesn't go into an instance.

A column goes into an instance, and stays sealed, where the query selects a model's own columns; in ``values()`` and as
an annotation it is opened. Either way the keys of many rows are loaded together, in the thread that reads the rows:
whoever reads an attribute later, in an event loop perhaps, needs neither the database nor a KMS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache, reduce
from itertools import chain, islice, repeat
from typing import Any

from django.db.models.expressions import Col, ColPairs
from django.db.models.sql.compiler import SQLCompiler

from django_asherah.envelope.keynames import one_per_key
from django_asherah.envelope.records import KeyMeta
from django_asherah.exceptions import AsherahError, EncryptionError
from django_asherah.fields.guards import refuse_misuse
from django_asherah.fields.sealed import NO_KEYS, Keys, PlacedRecord, SealedValue
from django_asherah.fields.sealing import load_keys

ROWS_AT_ONCE = 100
"""Rows whose keys are loaded together at first: as many as Django takes from the database at a time."""

MOST_ROWS_AT_ONCE = 1600
"""The same, when there are many rows; ``iterator()`` takes 2000 at a time."""

_MUCH = 256 * 1024
"""So long are the records, in characters or bytes, of which no more are read ahead than at first."""


class EncryptedCol(Col):
    """An encrypted column in a query. No two queries share one.

    Attributes:
        keys: the keys of the rows that are being read.
        is_opened: whether its values go somewhere else than into an instance.
    """

    target: Any
    keys: Keys = NO_KEYS
    is_opened = False

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        """Compile the column.

        Raises:
            FieldError: the query wants the database to understand what is in it.
        """
        refuse_misuse(compiler.query)
        return super().as_sql(compiler, connection)

    def select_format(self, compiler: Any, sql: str, params: Any) -> Any:
        """Find out where the selected values go, and have their keys loaded with the rows."""
        query = compiler.query
        self.is_opened = not query.default_cols or any(self is each for each in query.annotations.values())
        if not isinstance(compiler, _KeyLoading):
            compiler.__class__ = _key_loading(compiler.__class__)
        return super().select_format(compiler, sql, params)

    def get_db_converters(self, connection: Any) -> list[Callable[..., Any]]:
        """Return what makes of the column's value what the query yields."""
        if self.is_opened:
            return super().get_db_converters(connection)
        return [_seal_off]


class _KeyLoading(SQLCompiler):
    """A compiler that loads the keys of the encrypted columns which it selects."""

    def apply_converters(self, rows: Iterable[Any], converters: Mapping[int, Any]) -> Iterator[Any]:
        """Convert rows, some at a time.

        Raises:
            FieldError: a value is wanted whose partition the row says, but the query does not select the columns that
                say it.
        """
        return chain.from_iterable(self._converted(rows, converters))

    def _converted(self, rows: Iterable[Any], converters: Mapping[int, Any]) -> Iterator[Iterable[Any]]:
        selected = [
            _Selected(place, column, self._row_partition(column, converters))
            for place, (_, column) in converters.items()
            if isinstance(column, EncryptedCol)
        ]
        sealed = {each.place for each in selected if not each.column.is_opened}
        others = {place: each for place, each in converters.items() if place not in sealed}
        unread, size = iter(rows), ROWS_AT_ONCE
        while batch := list(islice(unread, size)):
            columns: list[Any] = list(zip(*batch, strict=True))
            keys = _load_keys(columns, selected)
            for each in selected:
                each.take(columns, keys)
            converted = zip(*columns, strict=True)
            yield super().apply_converters(converted, others) if others else converted
            if size < MOST_ROWS_AT_ONCE and sum(each.length(batch) for each in selected) < _MUCH:
                size *= 2

    def _row_partition(
        self, column: EncryptedCol, converters: Mapping[int, Any]
    ) -> Callable[[Any], Iterable[str]] | None:
        """Return what finds the rows' partitions in their columns; None if a column that says it is not selected."""
        field = column.target
        places = self._places()
        found = [places[key] for each in field.partition_fields if (key := (column.alias, each)) in places]
        if not found or len(found) < len(field.partition_fields):
            return None
        sources = [(place, *converters.get(place, ((), None))) for place in found]

        @lru_cache(maxsize=MOST_ROWS_AT_ONCE)
        def partition_of(*raw: Any) -> str:
            values = [
                reduce(lambda value, convert: convert(value, source, self.connection), converts, value)
                for value, (_, converts, source) in zip(raw, sources, strict=True)
            ]
            partition: str = field.partition_of(values)
            return partition

        return lambda columns: map(partition_of, *(columns[place] for place in found))

    def _places(self) -> dict[tuple[str, Any], int]:
        """Return where in a row each selected column stands: composite columns take several places."""
        places, place = {}, 0
        for expression, _, _ in self.select[: self.col_count]:
            if isinstance(expression, Col):
                places[expression.alias, expression.target] = place
            place += len(expression) if isinstance(expression, ColPairs) else 1
        return places


@dataclass(frozen=True, slots=True)
class _Selected:
    """An encrypted column among the columns of some rows.

    Attributes:
        place: which of them it is.
        column: the column.
        partitions_of: finds the rows' partitions; None if the field has its own, or the rows do not show theirs.
    """

    place: int
    column: EncryptedCol
    partitions_of: Callable[[Any], Iterable[str]] | None

    def find_keys(self, columns: list[Any]) -> Iterable[KeyMeta | None]:
        """Return the keys that the records name, each at least once."""
        field, raw = self.column.target, columns[self.place]
        if field.format.is_binary:
            raw = columns[self.place] = [bytes(each) if isinstance(each, memoryview) else each for each in raw]
            if self.partitions_of is not None:
                return map(field.find_key, raw, self._partitions(columns))
        return map(field.find_key, one_per_key([each for each in raw if each is not None] if None in raw else raw))

    def take(self, columns: list[Any], keys: Keys) -> None:
        """Put in the place of the records what the query yields of them, or what a converter makes that of."""
        raw = columns[self.place]
        if not self.column.is_opened:
            loaded = self.column.target.with_keys(keys)
            values: Iterable[Any] = map(SealedValue, raw, repeat(loaded))
            if None in raw:
                values = [None if each is None else SealedValue(each, loaded) for each in raw]
            columns[self.place] = values
            return
        self.column.keys = keys
        if self.column.target.template is not None:
            placed = zip(raw, self._partitions(columns), strict=True)
            columns[self.place] = [raw and PlacedRecord(raw, partition) for raw, partition in placed]

    def length(self, batch: list[Any]) -> int:
        """Return how long the records of some rows are, all together."""
        return sum(len(row[self.place] or "") for row in batch)

    def _partitions(self, columns: list[Any]) -> Iterable[str]:
        field = self.column.target
        if self.partitions_of is None:
            raise field.needs_row()
        try:
            return list(self.partitions_of(columns))
        except EncryptionError as exc:
            raise exc.at(field.full_name).with_traceback(None)  # noqa: B904 - it is the same error


def _load_keys(columns: list[Any], selected: Iterable[_Selected]) -> Keys:
    # Whatever is wrong with a key is an error of whoever reads its values, if anybody does.
    with suppress(AsherahError):
        return load_keys({meta for each in selected for meta in each.find_keys(columns)})
    return NO_KEYS


def _seal_off(value: Any, column: EncryptedCol, connection: Any) -> SealedValue | None:
    """Return a record that no query was compiled for: of ``raw()``, or of ``RETURNING``."""
    if value is None:
        return None
    record = bytes(value) if isinstance(value, memoryview) else value
    with suppress(AsherahError):
        field = column.target
        return SealedValue(record, field.with_keys(load_keys([field.find_key(record)])))
    return SealedValue(record)


@cache
def _key_loading(compiler: type[SQLCompiler]) -> type[SQLCompiler]:
    return type(f"KeyLoading{compiler.__name__}", (_KeyLoading, compiler), {})
