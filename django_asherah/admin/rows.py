"""Rows of the key table for the admin: a page of them in a constant number of queries.

The database only ever looks at a record's text, and no JSON is parsed but by our own decoder, row by row: so a row that
is broken, or not ours, breaks nothing but itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any, Self, cast

from django.db import connections
from django.db.models import BooleanField, Exists, Max, OuterRef, Q, QuerySet, TextField
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast, Left

from django_asherah import engine
from django_asherah.envelope.partition import KeyKind, intermediate_id_tail
from django_asherah.envelope.records import KeyMeta, decode_key
from django_asherah.exceptions import InvalidRecordError, MetastoreError
from django_asherah.lifecycle import KeyInfo, KeyState
from django_asherah.lifecycle.context import Context
from django_asherah.lifecycle.keys import key_info
from django_asherah.metastores.key_table import KeyRow
from django_asherah.metastores.shifts import shifted_range
from django_asherah.metastores.sql import child_pattern, created_value, may_be_child, record_text
from django_asherah.models import EncryptionKey


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

    def in_state(self, state: KeyState, context: Context) -> Self:
        """Return the keys in one state, by the rule of :class:`KeyState`."""
        # Quotes inside a JSON string are escaped, so no value can look like this. SDKs write no space, jsonb one.
        is_revoked = Q(text__contains='"Revoked":true') | Q(text__contains='"Revoked": true')
        if state is KeyState.REVOKED:
            return self.filter(is_revoked)
        rows, first_unexpired = self.exclude(is_revoked), created_value(connections[self.db], context.first_unexpired())
        if state is KeyState.EXPIRED:
            return rows.filter(created__lt=first_unexpired)
        newer = EncryptionKey.objects.filter(key_id=OuterRef("key_id"), created__gt=OuterRef("created"))
        has_newer = Exists(newer) if state is KeyState.SUPERSEDED else ~Exists(newer)
        return rows.filter(has_newer, created__gte=first_unexpired)

    def candidate_children(self, parent: KeyMeta) -> Self:
        """Return the intermediate keys under ``parent``, and perhaps some more."""
        condition: Any = RawSQL(  # noqa: S611 - the value is a parameter
            may_be_child(connections[self.db].vendor), [child_pattern(parent)], output_field=BooleanField()
        )
        return self.of_kind(KeyKind.INTERMEDIATE).filter(condition)


def key_rows(context: Context) -> KeyRows:
    """Return the rows that are keys. Their record is in ``record_text``, and ``key_record`` is never read.

    Raises:
        MetastoreError: the keys are not in a Django database.
    """
    alias = _alias_of(context)
    record: Any = RawSQL(record_text(connections[alias].vendor), [], output_field=TextField())  # noqa: S611 - no values
    rows: KeyRows = KeyRows(EncryptionKey, using=alias).defer("key_record").annotate(record_text=record)
    prefixes = {_prefix_name(kind): Left("key_id", len(kind.prefix)) for kind in KeyKind}
    rows = rows.alias(text=Cast("key_record", TextField()), **prefixes)
    return rows.filter(reduce(or_, map(_is_of_kind, KeyKind)))


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
    """Find out what ``rows`` are, for :func:`info_of`, with two queries however many they are."""
    alias = _alias_of(context)
    ids = {row.key_id for row in rows}
    same = EncryptionKey.objects.using(alias).filter(key_id__in=ids)
    newest = dict(same.values_list("key_id").annotate(Max("created")))
    keys = {row.pk: read_row(context, row, is_newest=row.created == newest.get(row.key_id)) for row in rows}
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
        return key_info(context, KeyRow(row.key_id, cast(Any, row).record_text), is_newest=is_newest)
    except InvalidRecordError as exc:
        return str(exc)


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
    record: Any = RawSQL(record_text(connection.vendor), [], output_field=TextField())  # noqa: S611 - no values
    found = EncryptionKey.objects.using(alias).filter(condition).annotate(record_text=record)
    rows = {}
    for pk, key_id, text in found.values_list("pk", "key_id", "record_text"):
        with suppress(InvalidRecordError):
            rows[KeyMeta(key_id, decode_key(text).created)] = pk
    return {meta: pk for meta, pk in rows.items() if meta in wanted}
