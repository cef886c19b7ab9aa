"""The encrypted columns of a project, and their raw contents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist
from django.db import DatabaseError, DataError, OperationalError, connections, models, router, transaction
from django.db.models.expressions import RawSQL
from msgspec import Struct

from django_asherah import engine
from django_asherah.envelope.records import KeyMeta
from django_asherah.envelope.session import Session
from django_asherah.exceptions import EncryptionError
from django_asherah.fields import EncryptedFieldMixin
from django_asherah.lifecycle.giving_way import insist

_UNREADABLE = "it is no text that this connection can read: its bytes are not valid in the character set"
_SQLITE_UNREADABLE = "Could not decode to UTF-8"


class UnknownColumnError(ValueError):
    """A name given for a model or a field is not one of an encrypted column."""


class Row(Struct, frozen=True, gc=False):
    """One row of a column.

    Attributes:
        pk: its primary key; a tuple if that is a composite one.
        raw: what the column holds: a record, or plaintext.
        partition: the one that the row says; None if the field's is the same for every row, or the row says none.
        place: what the columns hold that say it.
        fault: why the row says none, although it should; otherwise empty.
    """

    pk: Any
    raw: Any
    partition: str | None = None
    place: tuple[Any, ...] = ()
    fault: str = ""

    def __repr__(self) -> str:
        return f"<Row {self.pk}>"


@dataclass(frozen=True, slots=True)
class Column:
    """One encrypted column in one database.

    Attributes:
        model: the model whose table has it: a child's inherited column belongs to the parent.
        field: the field.
        alias: the database.
    """

    model: type[models.Model]
    field: EncryptedFieldMixin
    alias: str

    @property
    def label(self) -> str:
        """The column's name for people: ``app.Model.field``."""
        return f"{self.model._meta.label}.{self.field.name}"

    def rows(self, size: int, after: Any = None, until: Any = None) -> Iterator[list[Row]]:
        """Yield batches of rows, NULLs left out, in the order of the primary key.

        Raises:
            OperationalError: the primary keys are not what the database says.
        """
        ends: set[Any] = set()
        while batch := self._read(self._range(after, until)[:size]):
            yield batch
            after = advanced(ends, batch[-1].pk, self.label)

    def keys(self, size: int, after: Any = None, until: Any = None) -> Iterator[list[Any]]:
        """Yield batches of the primary keys of :meth:`rows`."""
        ends: set[Any] = set()
        while batch := self._keys_of(self._range(after, until)[:size]):
            yield batch
            after = advanced(ends, batch[-1], self.label)

    def last_key(self) -> Any:
        """Return the last primary key of :meth:`rows` as of now; None if there is none."""
        return next(iter(self._keys_of(self._queryset().order_by("-pk")[:1])), None)

    def sample(self, size: int, batch: int) -> Iterator[list[Row]]:
        """Yield batches of ``size`` rows taken at random."""
        keys = list(self._queryset().order_by("?").values_list("pk", flat=True)[:size])
        for start in range(0, len(keys), batch):
            yield self.at(keys[start : start + batch])

    def at(self, keys: Sequence[Any], *, lock: bool = False) -> list[Row]:
        """Return the rows with these primary keys, in their order.

        Args:
            keys: which.
            lock: hold the rows until the caller's transaction ends, where the database can (SQLite can't).
        """
        queryset = self._queryset().select_for_update() if lock else self._queryset()
        return self._read(queryset.filter(pk__in=keys).order_by("pk"))

    def keys_where(self, condition: str, most: int) -> list[Any]:
        """Return the first primary keys of the rows for which an SQL condition without parameters holds.

        Raises:
            DatabaseError: the database failed. The error, and what hangs on it, may show a value.
        """
        is_so = RawSQL(condition.replace("%", "%%"), [], models.BooleanField())  # noqa: S611 - no value goes into it
        return list(self._queryset().filter(is_so).order_by("pk").values_list("pk", flat=True)[:most])

    def held(self, keys: Sequence[Any]) -> set[Any]:
        """Return which of these primary keys are of rows that others have locked; none if the database can't tell."""
        if not connections[self.alias].features.has_select_for_update_skip_locked:
            return set()
        rows = self._queryset().filter(pk__in=keys).values_list("pk", flat=True)
        with transaction.atomic(using=self.alias):
            return set(rows).difference(rows.select_for_update(skip_locked=True))

    def sessions(self, rows: Iterable[Row]) -> dict[str | None, Session]:
        """Return the session of each partition that these rows say; None stands for the field's own."""
        partitions = {row.partition for row in rows if not row.fault}
        return {each: engine.get_session(self.field.partition if each is None else each) for each in partitions}

    def newest_keys(self, rows: Sequence[Row]) -> dict[str | None, KeyMeta]:
        """Return the newest key of each partition that these rows say, all of them loaded or made together.

        Raises:
            KMSError, MetastoreError: there is no key, and none can be loaded or made.
        """
        named = {said: session.partition.partition_id for said, session in self.sessions(rows).items()}
        keys = engine.get_factory().current_keys(named.values())
        return {said: keys[partition_id].meta for said, partition_id in named.items()}

    def count(self) -> int:
        """Return how many values there are, NULLs left out."""
        return int(self._queryset().count())

    def boundaries(self, parts: int) -> list[Any]:
        """Return primary keys that cut the rows into about ``parts`` equal pieces, the ends left out."""
        total = self.count()
        keys = self._queryset().order_by("pk").values_list("pk", flat=True)
        cuts = sorted({total * part // parts for part in range(1, parts)} - {0, total})
        return [keys[cut - 1] for cut in cuts]

    def _read(self, queryset: Any) -> list[Row]:
        try:
            return insist(self.alias, lambda: self._rows_of(queryset), f"{self.label}: a batch of rows")
        except (DatabaseError, UnicodeDecodeError) as exc:
            if not _is_unreadable(exc):
                raise
        return [row for pk in self._keys_of(queryset) for row in self._read_alone(pk)]

    def _read_alone(self, pk: Any) -> list[Row]:
        try:
            return self._rows_of(self._queryset().filter(pk=pk))
        except (DatabaseError, UnicodeDecodeError) as exc:
            if not _is_unreadable(exc):
                raise
        return [Row(pk, "", fault=_UNREADABLE)]

    def _rows_of(self, queryset: Any) -> list[Row]:
        names = [field.attname for field in self.field.partition_fields]
        values = queryset.values_list("pk", self.field.raw_value(), *names)
        return [self._row(pk, raw, tuple(place)) for pk, raw, *place in values]

    def _keys_of(self, queryset: Any) -> list[Any]:
        keys = queryset.values_list("pk", flat=True)
        return insist(self.alias, lambda: list(keys.all()), f"{self.label}: a batch of primary keys")

    def _row(self, pk: Any, raw: Any, place: tuple[Any, ...]) -> Row:
        if not isinstance(raw, str | bytes):
            return Row(pk, "", place=place, fault=f"it is no text, but of type {type(raw).__name__}")
        return self._placed(pk, raw, place) if self.field.partition_fields else Row(pk, raw)

    def _placed(self, pk: Any, raw: Any, place: tuple[Any, ...]) -> Row:
        try:
            partition = self.field.partition_of(place)
            engine.get_session(partition)  # It may be longer than a key id can be.
        except EncryptionError as exc:
            return Row(pk, raw, place=place, fault=str(exc))
        return Row(pk, raw, partition, place)

    def _range(self, after: Any = None, until: Any = None) -> Any:
        queryset = self._queryset()
        if after is not None:
            queryset = queryset.filter(pk__gt=after)
        if until is not None:
            queryset = queryset.filter(pk__lte=until)
        return queryset.order_by("pk")

    def _queryset(self) -> Any:
        # No manager: one may hide rows, and hidden rows are encrypted too.
        queryset: Any = models.QuerySet(self.model, using=self.alias)
        return queryset.filter(**{f"{self.field.name}__isnull": False})


def advanced(ends: set[Any], end: Any, label: str) -> Any:
    """Return the end of a batch of a column's rows, and add it to the ends of those before, none of which it may be.

    Raises:
        OperationalError: it was one, so that there would be no last batch.
    """
    if end in ends:
        raise OperationalError(
            f"{label}: pk={end} comes twice. The connection's character set can't hold all primary keys, or their "
            "collation is at odds with itself"
        )
    ends.add(end)
    return end


def _is_unreadable(error: Exception) -> bool:
    """Tell whether the database holds something that is no text for the connection."""
    return isinstance(error, UnicodeDecodeError | DataError) or _SQLITE_UNREADABLE in str(error)


def encrypted_columns(names: Iterable[str] = (), alias: str | None = None) -> list[Column]:
    """Return every encrypted column once, or those of the named ``app.Model`` or ``app.Model.field``.

    Args:
        names: which; all if empty.
        alias: the database to read; what the routers say if None.

    Raises:
        UnknownColumnError: a name is not one of an encrypted column.
    """
    names = list(names)
    columns = [
        Column(model, field, alias or router.db_for_write(model))
        for model in apps.get_models(include_auto_created=True)
        if not model._meta.proxy and not model._meta.swapped
        for field in model._meta.local_concrete_fields
        if isinstance(field, EncryptedFieldMixin)
    ]
    if not names:
        return columns
    wanted = [pair for name in names for pair in _resolve(name)]
    return [column for column in columns if (column.model, column.field.name) in wanted]


def names_of(columns: Iterable[Column]) -> dict[str, list[str]]:
    """Return what names these columns in the audit log."""
    columns = list(columns)
    return {
        "columns": [column.label for column in columns],
        "databases": sorted({column.alias for column in columns}),
    }


def count_values(names: Iterable[str] = (), alias: str | None = None, most: int | None = None) -> int:
    """Return how many values the columns of :func:`encrypted_columns` hold, ``most`` of each at the most."""
    counts = [column.count() for column in encrypted_columns(names, alias)]
    return sum(counts if most is None else (min(count, most) for count in counts))


def _resolve(name: str) -> list[tuple[type[models.Model], str]]:
    if name.count(".") not in {1, 2}:
        raise UnknownColumnError(f"{name!r} names no model or field: write app.Model or app.Model.field")
    app_model, _, field_name = name.rpartition(".") if name.count(".") == 2 else (name, "", "")
    try:
        model = apps.get_model(app_model)
        fields = [model._meta.get_field(field_name)] if field_name else model._meta.concrete_fields
    except (LookupError, FieldDoesNotExist) as exc:
        raise UnknownColumnError(f"{name!r} names no model or field: {exc}") from exc
    found = [(field.model, field.name) for field in fields if isinstance(field, EncryptedFieldMixin)]
    if not found:
        raise UnknownColumnError(f"{name!r} has no encrypted field")
    return found
