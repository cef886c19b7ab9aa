"""Rows on their way from the database: the keys of many are loaded together, in the thread that reads them.

Whoever reads an attribute later, in an event loop perhaps, needs neither the database nor a KMS.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, reduce
from itertools import chain, islice, repeat
from typing import Any, TypeAlias

from django.core.exceptions import ImproperlyConfigured
from django.db.models.expressions import Col, ColPairs
from django.db.models.sql.compiler import SQLCompiler

from django_asherah.envelope.keynames import one_per_key
from django_asherah.envelope.records import KeyMeta
from django_asherah.exceptions import AsherahError, EncryptionError
from django_asherah.fields.records import literals_of, row_of
from django_asherah.fields.sealed import NO_KEYS, Keys, Literal, Loaded, SealedValue, are_lasting
from django_asherah.fields.sealing import load_keys

ROWS_AT_ONCE = 100
"""Rows that are read together at first: as many as Django takes from the database at a time."""

MOST_ROWS_AT_ONCE = 1600
"""The same, when there are many rows."""

_MUCH = 256 * 1024
"""So long are the records, in characters or bytes, of which no more are read together than at first."""

Columns: TypeAlias = list[Any]
"""Some rows, column by column: for each place in a row, the values that stand there."""

Partitions: TypeAlias = list[str | None]


def load_with_rows(compiler: Any) -> None:
    """Let a compiler load the keys of what it selects with the rows that it reads."""
    if not isinstance(compiler, _KeyLoading):
        compiler.__class__ = _key_loading(compiler.__class__)


@cache
def _key_loading(compiler: type[SQLCompiler]) -> type[SQLCompiler]:
    return type(f"KeyLoading{compiler.__name__}", (_KeyLoading, compiler), {})


class _KeyLoading(SQLCompiler):
    def results_iter(self, results: Any = None, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Yield the rows; of an iterator, none that is further ahead than its chunks."""
        if results is None or isinstance(results, list):
            return super().results_iter(results, *args, **kwargs)
        whole = super().results_iter
        return chain.from_iterable(whole([chunk], *args, **kwargs) for chunk in results)

    def apply_converters(self, rows: Iterable[Any], converters: Mapping[int, Any]) -> Iterator[Any]:
        """Convert rows, some at a time.

        Raises:
            FieldError: a value is wanted whose partition the row says, but the query does not select the columns that
                say it.
        """
        return chain.from_iterable(self._converted(rows, converters))

    def _converted(self, rows: Iterable[Any], converters: Mapping[int, Any]) -> Iterator[Iterable[Any]]:
        unread, size = iter(rows), ROWS_AT_ONCE
        selected = list(self._selected(converters))
        sealed = {each.place for each in selected if not each.is_opened}
        others = {place: each for place, each in converters.items() if place not in sealed}
        while batch := list(islice(unread, size)):
            columns: Columns = list(zip(*batch, strict=True))
            is_much = size == MOST_ROWS_AT_ONCE or sum(each.length(columns) for each in selected) >= _MUCH
            _seal_off(columns, selected)
            converted = zip(*columns, strict=True)
            yield super().apply_converters(converted, others) if others else converted
            size = size if is_much else 2 * size

    def _selected(self, converters: Mapping[int, Any]) -> Iterator[_Selected]:
        places = self._places()
        for place, (_, expression) in converters.items():
            field = getattr(expression, "target", None) or expression._output_field_or_none
            if getattr(field, "record_kind", None) is None:
                continue
            is_opened = getattr(expression, "is_opened", True)
            find: _SaidByRow | None = None
            if field.template is not None:
                alias = row_of(expression)
                said_at = [places.get((alias, column)) for column in field.partition_fields]
                if None not in said_at:
                    find = _SaidByRow(self, field, said_at, converters)
                elif (pk_at := _find_key(places, alias, field.model._meta.pk)) is not None and not is_opened:
                    find = _SaidByTable(self, field, [pk_at], converters)
            yield _Selected(place, field, is_opened, find, literals_of(expression))

    def _places(self) -> dict[tuple[Any, Any], int]:
        """Return where in a row each selected column stands: composite columns take several places."""
        places: dict[tuple[Any, Any], int] = {}
        place = 0
        for expression, _, _ in self.select[: self.col_count]:
            if isinstance(expression, Col):
                places[expression.alias, expression.target] = place
            place += len(expression) if isinstance(expression, ColPairs) else 1
        return places


def _find_key(places: Mapping[tuple[Any, Any], int], alias: str | None, key: Any) -> int | None:
    """Return where the primary key of a column's row stands: its own, or that of the only child with the same."""
    if (alias, key) in places:
        return places[alias, key]
    links = [
        at for (_, each), at in places.items() if each.primary_key and each.is_relation and each.target_field is key
    ]
    return links[0] if len(links) == 1 else None


class _SaidByRow:
    """Finds the partitions of rows in columns that were selected with them."""

    def __init__(self, compiler: Any, field: Any, places: list[Any], converters: Mapping[int, Any]) -> None:
        self._compiler = compiler
        self._field = field
        self._sources = [(place, *converters.get(place, ((), None))) for place in places]

    def __call__(self, columns: Columns) -> Partitions:
        """Return each row's partition; None if it says none."""
        return list(map(self._partition_of, *self._values(columns)))

    def _values(self, columns: Columns) -> list[Any]:
        connection = self._compiler.connection
        return [
            reduce(
                lambda values, convert: [convert(each, source, connection) for each in values], convs, columns[place]
            )
            for place, convs, source in self._sources
        ]

    def complain(self, columns: Columns, number: int) -> None:
        """Raise the error of a row that says no partition.

        Raises:
            EncryptionError: what is wrong with what it says.
        """
        self._field.partition_of([values[number] for values in self._values(columns)])

    def _partition_of(self, *values: Any) -> str | None:
        with suppress(EncryptionError):
            partition: str = self._field.partition_of(values)
            return partition
        return None


class _SaidByTable(_SaidByRow):
    """Finds the partitions of rows whose query has left out the columns that say them."""

    def __call__(self, columns: Columns) -> Partitions:
        """Return each row's partition; None if it says none, or is not there any more."""
        (keys,) = self._values(columns)
        names = [column.attname for column in self._field.partition_fields]
        rows = self._field.model._base_manager.using(self._compiler.using).filter(pk__in={*keys} - {None})
        said = {pk: self._partition_of(*values) for pk, *values in rows.values_list("pk", *names)}
        return [said.get(key) for key in keys]


@dataclass(frozen=True, slots=True)
class _Selected:
    """A column of records among the columns of some rows.

    Attributes:
        place: which of them it is.
        field: the field.
        is_opened: whether its values go somewhere else than into an instance.
        find_partitions: finds the rows' partitions; None if the field has its own, or nothing says theirs.
        literals: texts that may stand there instead of a record.
    """

    place: int
    field: Any
    is_opened: bool
    find_partitions: _SaidByRow | None
    literals: frozenset[str] = frozenset()

    def partitions(self, columns: Columns) -> Partitions:
        """Return the partition that each row says."""
        return self.find_partitions(columns) if self.find_partitions else [None] * len(columns[self.place])

    def find_keys(self, columns: Columns, partitions: Partitions) -> Iterable[KeyMeta | None]:
        """Return the keys that the records name, each at least once."""
        field, raw = self.field, columns[self.place]
        if self.literals:
            return map(field.find_key, [each for each in raw if each not in self.literals], repeat(None))
        if field.format.is_binary:
            if memoryview in set(map(type, raw)):
                raw = columns[self.place] = [each and bytes(each) for each in raw]
            if field.template is not None:  # A compact record does not name its partition.
                return map(field.find_key, raw, partitions)
        return map(field.find_key, one_per_key([each for each in raw if each is not None] if None in raw else raw))

    def seal_off(self, columns: Columns, keys: Keys, partitions: Partitions, *, is_lasting: bool) -> None:
        """Let sealed values stand where the records do."""
        field, raw = self.field, columns[self.place]
        if self.is_opened and field.template is not None:
            self._require(columns, partitions)
        if field.template is None and None not in raw and not self.literals:
            columns[self.place] = map(SealedValue, raw, repeat(self._loaded(keys, None, is_lasting)))
            return
        loaded = {partition: self._loaded(keys, partition, is_lasting) for partition in set(partitions)}
        columns[self.place] = [
            None if record is None else SealedValue(record, loaded[partition])
            for record, partition in zip(raw, partitions, strict=True)
        ]
        if self.literals:
            columns[self.place] = [
                Literal(record) if record in self.literals else sealed
                for record, sealed in zip(raw, columns[self.place], strict=True)
            ]

    def length(self, columns: Columns) -> int:
        """Return how long the records are, all together."""
        return sum(map(len, filter(None, columns[self.place])))

    def _loaded(self, keys: Keys, partition: str | None, is_lasting: bool) -> Loaded:
        if self.is_opened:
            return Loaded(keys, partition)
        loaded: Loaded = self.field.found_with(keys, partition, is_lasting=is_lasting)
        return loaded

    def _require(self, columns: Columns, partitions: Partitions) -> None:
        if self.find_partitions is None:
            raise self.field.needs_row()
        for number, (record, partition) in enumerate(zip(columns[self.place], partitions, strict=True)):
            if record is not None and partition is None:
                try:
                    self.find_partitions.complain(columns, number)
                except EncryptionError as exc:
                    raise exc.at(self.field.full_name).with_traceback(None)  # noqa: B904 - it is the same error


def _seal_off(columns: Columns, selected: Iterable[_Selected]) -> None:
    partitions = [(each, each.partitions(columns)) for each in selected]
    keys = NO_KEYS
    # Whatever is wrong with a key or the settings is an error of whoever reads its values, if anybody does.
    with suppress(AsherahError, ImproperlyConfigured):
        keys = load_keys({meta for each, said in partitions for meta in each.find_keys(columns, said)})
    is_lasting = are_lasting(keys)
    for each, said in partitions:
        each.seal_off(columns, keys, said, is_lasting=is_lasting)
