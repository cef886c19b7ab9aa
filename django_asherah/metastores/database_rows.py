"""The rows of the key table of a Django database, as the lifecycle lists and replaces them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, cast

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, encode_key
from django_asherah.metastores.connections import privately, read_as_caller
from django_asherah.metastores.key_table import KeyRow
from django_asherah.metastores.selects import select_one
from django_asherah.metastores.shifts import Row, created_of, fault_of, in_order, with_others_of_their_names
from django_asherah.metastores.sql import (
    MAY_BE_KEY,
    child_pattern,
    created_range,
    failures_translated,
    has_zones,
    in_utc,
    may_be_child,
    record_text,
    stored_created,
)

ROWS_PER_QUERY = 1000
"""Rows read at a time."""

_AS_TEXT = {"mysql": "CAST(%s AS BINARY)", "sqlite": "CAST(%s AS blob)"}
"""A record's text as a parameter that :func:`record_text` is compared with, byte for byte."""


_ANY_VALUE = "hex(created) || typeof(created)"
_PLACES = {
    "postgresql": ("encryption_key.created", "CAST(created AS text)"),
    "mysql": ("encryption_key.created", "CAST(created AS CHAR)"),
    "sqlite": (_ANY_VALUE, _ANY_VALUE),  # A column there holds anything, and what is no UTF-8 can't be read as text.
}
"""By what the rows of one id are put in order, and how that is read: drivers can't load all that a column holds."""

_ID = ("id", "1 = 1")
_IDS = {"sqlite": ("CAST(id AS blob)", "typeof(id) = 'text'")}
"""How a key id is read whatever it is, and whether it is text: nothing else is found by a name."""

_OTHER_IS_READ = (
    "another row is of the same key id and creation time, and is the one that is read; so nothing written under this "
    "one could be: remove one of the two"
)


class DatabaseRows:
    """Every row of the key table of one database alias."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def scan(self) -> Iterator[KeyRow]:
        """Yield every row, in constant memory: by id, each id's newest first."""
        return self._scan("1 = 1", [])

    def children(self, parent: KeyMeta) -> Iterator[KeyRow]:
        """Yield every row that names ``parent`` as its parent, and perhaps some more."""
        return self._scan(may_be_child(connections[self.alias].vendor), [child_pattern(parent)])

    def versions(self, key_id: str) -> list[KeyRow]:
        """Return every row of one key id, the newest first."""
        rows = self._select("id, {record}, {stored}", "id = %s ORDER BY created DESC", [key_id])
        return list(self._key_rows(cast("list[Row]", rows)))

    def count(self) -> int:
        """Return the number of rows."""
        return int(self._select("COUNT(*)", "1 = 1", [])[0][0])

    def read(self, meta: KeyMeta) -> KeyRow | None:
        """Return one key's row, or None."""
        with failures_translated(self.alias):
            row = read_as_caller(connections[self.alias], partial(select_one, meta=meta))
        if row is None or created_of(row) not in (None, meta.created):
            return None
        return KeyRow(meta.key_id, row[1], fault=self._fault_of(row))

    def replace(self, row: KeyRow, record: EnvelopeKeyRecord) -> bool:
        """Put ``record`` in the place of exactly the text of ``row``; False if something else stands there by now."""
        with failures_translated(self.alias):
            shared = connections[self.alias]
            if shared.vendor == "sqlite":
                return _swap(shared, row, record)
            return privately(shared, partial(_swap, row=row, record=record))

    def _scan(self, condition: str, parameters: list[Any]) -> Iterator[KeyRow]:
        return self._key_rows(self._pages(condition, parameters))

    def _key_rows(self, rows: Iterable[Row]) -> Iterator[KeyRow]:
        for row, has_other in with_others_of_their_names(in_order(rows)):
            yield KeyRow(row[0], row[1], fault=self._fault_of(row) or (_OTHER_IS_READ if has_other else ""))

    def _fault_of(self, row: Row) -> str:
        return fault_of(row, has_zones=has_zones(connections[self.alias].vendor))

    def _pages(self, condition: str, parameters: list[Any]) -> Iterator[Row]:
        page = self._page(condition, parameters)
        while page:
            for key_id, text, stored, _, is_text in page:
                yield _shown_id(key_id, is_text=is_text), text, stored
            key_id, _, _, last, is_text = page[-1]
            place, _ = _PLACES[connections[self.alias].vendor]
            same = "CAST(%s AS text)" if is_text and isinstance(key_id, bytes) else "%s"
            after = f"{condition} AND (id > {same} OR (id = {same} AND {place} < %s))"
            page = self._page(after, [*parameters, key_id, key_id, last])

    def _page(self, condition: str, parameters: list[Any]) -> list[tuple[Any, ...]]:
        vendor = connections[self.alias].vendor
        place, shown = _PLACES[vendor]
        key_id, is_text = _IDS.get(vendor, _ID)
        order = f"ORDER BY id, {place} DESC LIMIT {ROWS_PER_QUERY}"
        return self._select(f"{key_id}, {{record}}, {{stored}}, {shown}, {is_text}", f"{condition} {order}", parameters)

    def _select(self, columns: str, condition: str, parameters: list[Any]) -> list[tuple[Any, ...]]:
        with failures_translated(self.alias):
            connection = connections[self.alias]
            columns = columns.format(record=record_text(connection.vendor), stored=stored_created(connection.vendor))
            statement = in_utc(connection, f"SELECT {columns} FROM encryption_key WHERE {condition}")
            return read_as_caller(connection, partial(_fetch, statement=statement, parameters=parameters))


def _fetch(connection: BaseDatabaseWrapper, statement: str, parameters: list[Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return list(cursor.fetchall())


def _shown_id(key_id: str | bytes, *, is_text: bool) -> str:
    """Return a key id; for what no key has, such as a blob, a text that is no key's id either."""
    if isinstance(key_id, str):
        return key_id
    try:
        return key_id.decode() if is_text else repr(key_id)
    except UnicodeDecodeError:
        return repr(key_id)


def _swap(connection: BaseDatabaseWrapper, row: KeyRow, record: EnvelopeKeyRecord) -> bool:
    is_same = f"{record_text(connection.vendor)} = {_AS_TEXT.get(connection.vendor, '%s')}"
    # A TIMESTAMP may be one that every update sets to the current time, unless the update sets it.
    kept = ", created = created" if connection.vendor == "mysql" else ""
    statement = f"UPDATE encryption_key SET key_record = %s{kept} WHERE {MAY_BE_KEY} AND {is_same}"
    first, last = created_range(connection, record.created)
    with connection.cursor() as cursor:
        parameters = [encode_key(record), row.key_id, first, last, row.text]
        cursor.execute(in_utc(connection, statement, writes=True), parameters)
        return bool(cursor.rowcount)
