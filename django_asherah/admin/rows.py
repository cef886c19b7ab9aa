"""Rows of the key table for the admin: a page of them in a constant number of queries.

The database only ever looks at a record's text, and no JSON is parsed but by our own decoder, row by row: so a row that
is broken, or not ours, breaks nothing but itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any, Self, cast

from django.db import connections
from django.db.models import BigIntegerField, BooleanField, Exists, OuterRef, Q, QuerySet, TextField
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast, Left

from django_asherah import engine
from django_asherah.envelope.partition import KeyKind, intermediate_id_tail
from django_asherah.envelope.policy import MAX_SKEW
from django_asherah.envelope.records import MAX_CREATED, KeyMeta
from django_asherah.exceptions import InvalidRecordError, MetastoreError
from django_asherah.lifecycle import KeyInfo, KeyState
from django_asherah.lifecycle.context import Context
from django_asherah.lifecycle.keys import key_info
from django_asherah.metastores.key_table import KeyRow
from django_asherah.metastores.shifts import Row, fault_of, pick, shifted_range
from django_asherah.metastores.sql import (
    child_pattern,
    created_value,
    has_zones,
    may_be_child,
    record_text,
    says_its_time,
    stored_created,
)
from django_asherah.models import EncryptionKey

MOST_UNSOUND = 500
"""Rows that are no keys, and are told from keys where the database can't do it."""


@dataclass(frozen=True, slots=True)
class RowInfo:
    """What a row is.

    Attributes:
        key: the key; None if its record can't be read.
        problem: why not.
        parent_pk: the row of its parent; None if it has none, or if that is missing.
    """

    key: KeyInfo | None
    problem: str = ""
    parent_pk: int | None = None

    @property
    def state(self) -> str:
        """The state of the key, or that it can't be read."""
        return self.key.state.value if self.key else "unreadable"


class KeyRows(QuerySet[Any, Any]):
    """Rows of ``EncryptionKey``, with names of their own besides the fields."""

    def of_kind(self, kind: KeyKind) -> Self:
        """Return the keys of one kind."""
        return self.filter(_is_of_kind(kind))

    def ours(self, context: Context) -> Self:
        """Return the keys of the configured service, product and suffix: those that new writes use."""
        system_id = context.factory.system_key_id
        is_intermediate = _is_of_kind(KeyKind.INTERMEDIATE) & Q(key_id__endswith=intermediate_id_tail(system_id))
        return self.filter(Q(key_id=system_id) | is_intermediate)

    def in_state(self, state: KeyState, context: Context, unsound: Sequence[int]) -> Self:
        """Return the keys in one state, by the rule of :class:`KeyState`; ``unsound`` are rows that are no keys."""
        # Quotes inside a JSON string are escaped, so no value can look like this. SDKs write no space, jsonb one.
        is_revoked = Q(text__contains='"Revoked":true') | Q(text__contains='"Revoked": true')
        if state is KeyState.REVOKED:
            return self.filter(is_revoked)
        rows = self.exclude(is_revoked).exclude(pk__in=unsound)
        first_unexpired = created_value(connections[self.db], context.first_unexpired())
        if state is KeyState.EXPIRED:
            return rows.filter(created__lt=first_unexpired)
        rows = rows.filter(created__gte=first_unexpired)
        is_superseded = _has_newer(context).exclude(pk__in=unsound)
        is_current = ~Exists(is_superseded) & Q(created__lte=_last_of_now(context))
        return rows.filter(is_current if state is KeyState.CURRENT else ~is_current)

    def unsound(self) -> list[int]:
        """Return the primary keys of rows that are no keys, as far as their times tell: the last five hundred."""
        condition: Any = RawSQL(says_its_time(connections[self.db].vendor), [], output_field=BooleanField())  # noqa: S611 - no values
        rows = self.filter(~Q(condition)).order_by("-created")[:MOST_UNSOUND]
        return [row.pk for row in rows if not _is_sound(row)]

    def candidate_children(self, parent: KeyMeta) -> Self:
        """Return the intermediate keys under ``parent``, and perhaps some more."""
        condition: Any = RawSQL(  # noqa: S611 - the value is a parameter
            may_be_child(connections[self.db].vendor), [child_pattern(parent)], output_field=BooleanField()
        )
        return self.of_kind(KeyKind.INTERMEDIATE).filter(condition)


def key_rows(context: Context) -> KeyRows:
    """Return the rows that have the id of a key. ``key_record`` is never read.

    Their record is in ``record_text``, and their column ``created``, as UTC in Unix seconds, in ``stored``.

    Raises:
        MetastoreError: the keys are not in a Django database.
    """
    alias = _alias_of(context)
    rows: KeyRows = _with_texts(KeyRows(EncryptionKey, using=alias), connections[alias].vendor).defer("key_record")
    prefixes = {_prefix_name(kind): Left("key_id", len(kind.prefix)) for kind in KeyKind}
    rows = rows.alias(text=Cast("key_record", TextField()), **prefixes)
    return rows.filter(reduce(or_, map(_is_of_kind, KeyKind)))


def _with_texts(rows: Any, vendor: str) -> Any:
    record: Any = RawSQL(record_text(vendor), [], output_field=TextField())  # noqa: S611 - no values
    stored: Any = RawSQL(stored_created(vendor), [], output_field=BigIntegerField())  # noqa: S611 - no values
    return rows.annotate(record_text=record, stored=stored)


def _alias_of(context: Context) -> str:
    alias = engine.get_keys_database()
    if alias is None:
        raise MetastoreError(
            "the admin shows keys that are in a Django database (ASHERAH['METASTORE'] = 'database'), "
            f"not in {type(context.factory.metastore).__name__}"
        )
    return alias


def _prefix_name(kind: KeyKind) -> str:
    return f"prefix_of_{kind}"


def _is_of_kind(kind: KeyKind) -> Q:
    # Not "startswith", which on SQLite tells no capital from a small letter.
    return Q(**{_prefix_name(kind): kind.prefix})


def attach_infos(context: Context, rows: Sequence[EncryptionKey]) -> None:
    """Find out what ``rows`` are, for :func:`info_of`, with two queries however many they are.

    There is one more for each id whose last row is no key.
    """
    alias = _alias_of(context)
    newest = _find_newest(context, {row.key_id for row in rows})
    keys = {row.pk: read_row(context, row, is_newest=row.pk == newest.get(row.key_id)) for row in rows}
    parents = _find_rows(alias, {key.parent for key in keys.values() if isinstance(key, KeyInfo) and key.parent})
    for row in rows:
        key = keys[row.pk]
        if isinstance(key, KeyInfo):
            info = RowInfo(key, parent_pk=parents.get(key.parent) if key.parent else None)
        else:
            info = RowInfo(None, problem=key)
        cast(Any, row).info = info


def info_of(row: EncryptionKey) -> RowInfo:
    """Return what :func:`attach_infos` found out."""
    info: RowInfo = cast(Any, row).info
    return info


def read_row(context: Context, row: EncryptionKey, *, is_newest: bool) -> KeyInfo | str:
    """Return the key that a row holds, or why it can't be read."""
    try:
        return key_info(context, _key_row(row), newer=() if is_newest else (True, False))
    except InvalidRecordError as exc:
        return str(exc)


def _key_row(row: EncryptionKey) -> KeyRow:
    key_id, text, stored = _as_stored(row)
    return KeyRow(key_id, text, fault=fault_of((key_id, text, stored), has_zones=has_zones(_vendor_of(row))))


def _as_stored(row: EncryptionKey) -> Row:
    return row.key_id, cast(Any, row).record_text, cast(Any, row).stored


def _vendor_of(row: EncryptionKey) -> str:
    return connections[cast(Any, row)._state.db].vendor


def _last_of_now(context: Context) -> Any:
    """Return the last time that is none of the future, as the ORM compares it with the column."""
    last = min(int(context.factory.clock() + MAX_SKEW), MAX_CREATED)
    return created_value(connections[_alias_of(context)], last)


def _has_newer(context: Context) -> QuerySet[Any, Any]:
    """Return the rows of an outer row's id that are newer, and none of the future."""
    newer = EncryptionKey.objects.filter(key_id=OuterRef("key_id"), created__gt=OuterRef("created"))
    return newer.filter(created__lte=_last_of_now(context))


def _is_sound(row: EncryptionKey) -> bool:
    try:
        _key_row(row).record()
    except InvalidRecordError:
        return False
    return True


def _find_newest(context: Context, ids: Collection[str]) -> dict[str, int]:
    """Return the primary key of the newest key of each of these ids that has any."""
    keys = key_rows(context).filter(created__lte=_last_of_now(context))
    last = keys.filter(~Exists(_has_newer(context)), key_id__in=ids)
    newest = {row.key_id: row.pk for row in last if _is_sound(row)}
    for key_id in set(ids) - newest.keys():
        rows = keys.filter(key_id=key_id).order_by("-created").iterator(chunk_size=MOST_UNSOUND)
        if row := next(filter(_is_sound, rows), None):
            newest[key_id] = row.pk
    return newest


def _find_rows(alias: str, metas: Iterable[KeyMeta]) -> dict[KeyMeta, int]:
    """Return the primary keys of the rows of ``metas``, with one query, or two if a row is not in its place."""
    wanted = {(meta.key_id, created_value(connections[alias], meta.created)): meta for meta in metas}
    if not wanted:
        return {}
    condition = reduce(or_, (Q(key_id=key_id, created=created) for key_id, created in wanted))
    found = EncryptionKey.objects.using(alias).filter(condition).values_list("pk", "key_id", "created")
    rows = {wanted[key_id, created]: pk for pk, key_id, created in found if (key_id, created) in wanted}
    missing = [meta for meta in wanted.values() if meta not in rows]
    return rows | _find_shifted(alias, missing) if missing else rows


def _find_shifted(alias: str, metas: Iterable[KeyMeta]) -> dict[KeyMeta, int]:
    """Return the primary keys of rows that a session of another time zone has put beside their places."""
    connection, wanted = connections[alias], set(metas)
    ranges = {meta: [created_value(connection, each) for each in shifted_range(meta.created)] for meta in wanted}
    condition = reduce(or_, (Q(key_id=meta.key_id, created__range=each) for meta, each in ranges.items()))
    found = _with_texts(EncryptionKey.objects.using(alias).filter(condition), connection.vendor).defer("key_record")
    rows = {_as_stored(row): row.pk for row in found}
    return {meta: rows[row] for meta, row in pick(rows, wanted).items()}
