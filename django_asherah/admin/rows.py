"""Rows of the key table for the admin: a page of them in a constant number of queries.

The database only ever looks at a record's text, and no JSON is parsed but by our own decoder, row by row: so a row that
is broken, or not ours, breaks nothing but itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from typing import Any, cast
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import connections
from django.db.models import Exists, Max, OuterRef, Q, QuerySet, TextField
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast, Left

from django_asherah.envelope.records import KeyMeta
from django_asherah.exceptions import InvalidRecordError
from django_asherah.lifecycle import KeyInfo, KeyState
from django_asherah.lifecycle.context import Context
from django_asherah.lifecycle.keys import describe
from django_asherah.metastores.table import record_text, text_of
from django_asherah.models import EncryptionKey

Rows = QuerySet[Any, Any]  # of EncryptionKey, with names of its own besides the fields

PREFIXES = {"system": "_SK_", "intermediate": "_IK_"}


@dataclass(frozen=True, slots=True)
class Described:
    """What a row is.

    Attributes:
        info: the key; None if its record can't be read.
        problem: why not.
        parent_pk: the row of its parent; None if it has none, or if that is missing.
    """

    info: KeyInfo | None
    problem: str = ""
    parent_pk: int | None = None


def key_rows(alias: str) -> Rows:
    """Return the rows that are keys. Their record is in ``record_text``, and ``key_record`` is never read."""
    record: Any = RawSQL(record_text(connections[alias].vendor), [], output_field=TextField())  # noqa: S611 - no values
    rows: Rows = EncryptionKey.objects.using(alias).defer("key_record").annotate(record_text=record)
    rows = rows.alias(prefix=Left("key_id", 4), text=Cast("key_record", TextField()))
    return rows.filter(prefix__in=PREFIXES.values())


def of_kind(rows: Rows, kind: str) -> Rows:
    """Return the ``system`` or the ``intermediate`` keys among ``rows``."""
    return rows.filter(prefix=PREFIXES[kind])


def in_state(rows: Rows, state: KeyState, context: Context) -> Rows:
    """Return those of ``rows`` that are in a state."""
    # Quotes inside a JSON string are escaped, so no value can look like this. SDKs write no space, jsonb one.
    is_revoked = Q(text__contains='"Revoked":true') | Q(text__contains='"Revoked": true')
    if state is KeyState.REVOKED:
        return rows.filter(is_revoked)
    factory = context.factory
    first_fresh = as_column(rows.db, ceil(factory.clock() - factory.policy.expire_after))
    rows = rows.exclude(is_revoked)
    if state is KeyState.EXPIRED:
        return rows.filter(created__lt=first_fresh)
    newer = EncryptionKey.objects.filter(key_id=OuterRef("key_id"), created__gt=OuterRef("created"))
    has_newer = Exists(newer) if state is KeyState.SUPERSEDED else ~Exists(newer)
    return rows.filter(has_newer, created__gte=first_fresh)


def that_may_be_under(rows: Rows, parent: KeyMeta) -> Rows:
    """Return those of ``rows`` that have ``parent`` above them, and perhaps some more."""
    return (
        of_kind(rows, "intermediate")
        .filter(text__contains='"ParentKeyMeta"')
        .filter(Q(text__contains=f'"Created":{parent.created}') | Q(text__contains=f'"Created": {parent.created}'))
    )


def describe_rows(context: Context, rows: Sequence[EncryptionKey]) -> None:
    """Find out what ``rows`` are, for :func:`described`, with two queries however many they are."""
    alias = context.table.alias
    ids = {row.key_id for row in rows}
    same = EncryptionKey.objects.using(alias).filter(key_id__in=ids)
    newest = dict(same.values_list("key_id").annotate(Max("created")))
    infos = {row.pk: read_row(context, row, is_newest=row.created == newest.get(row.key_id)) for row in rows}
    parents = find_rows(alias, {info.parent for info in infos.values() if isinstance(info, KeyInfo) and info.parent})
    for row in rows:
        info = infos[row.pk]
        if isinstance(info, KeyInfo):
            what = Described(info, parent_pk=parents.get(info.parent) if info.parent else None)
        else:
            what = Described(None, problem=info)
        cast(Any, row).described = what


def described(row: EncryptionKey) -> Described:
    """Return what :func:`describe_rows` found out."""
    what: Described = cast(Any, row).described
    return what


def read_row(context: Context, row: EncryptionKey, *, is_newest: bool) -> KeyInfo | str:
    """Return the key that a row holds, or why it can't be read."""
    try:
        return describe(context, row.key_id, text_of(cast(Any, row).record_text), is_newest=is_newest)
    except InvalidRecordError as exc:
        return str(exc)


def find_rows(alias: str, metas: Iterable[KeyMeta]) -> dict[KeyMeta, int]:
    """Return the primary keys of the rows of ``metas``, with one query."""
    wanted = list(metas)
    if not wanted:
        return {}
    condition = Q()
    for meta in wanted:
        condition |= Q(key_id=meta.key_id, created=as_column(alias, meta.created))
    found = EncryptionKey.objects.using(alias).filter(condition).values_list("pk", "key_id", "created")
    moments = {(meta.key_id, as_column(alias, meta.created)): meta for meta in wanted}
    return {moments[key_id, created]: pk for pk, key_id, created in found if (key_id, created) in moments}


def as_column(alias: str, created: int) -> datetime:
    """Return a moment (Unix seconds) as the ``created`` of a row of this database."""
    moment = datetime.fromtimestamp(created, UTC)
    if settings.USE_TZ:
        return moment
    if connections[alias].vendor == "postgresql":
        return datetime.fromtimestamp(created, ZoneInfo(connections[alias].timezone_name)).replace(tzinfo=None)
    return moment.replace(tzinfo=None)  # UTC wall-clock time, as every SDK writes it.
