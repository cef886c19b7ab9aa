"""The rows of the key table of a Django database, as the lifecycle lists and replaces them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, encode_key
from django_asherah.metastores.key_table import KeyRow
from django_asherah.metastores.sql import (
    IS_KEY,
    child_pattern,
    created_literal,
    failures_translated,
    may_be_child,
    private_connection,
    record_text,
)

ROWS_PER_QUERY = 1000
"""Rows read at a time."""

_AS_TEXT = {"mysql": "CAST(%s AS BINARY)", "sqlite": "CAST(%s AS blob)"}
"""A record's text as a parameter that :func:`record_text` is compared with, byte for byte."""


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
        return [KeyRow(key_id, text) for (text,) in self._select("{record}", "id = %s ORDER BY created DESC", [key_id])]

    def count(self) -> int:
        """Return the number of rows."""
        return int(self._select("COUNT(*)", "1 = 1", [])[0][0])

    def read(self, meta: KeyMeta) -> KeyRow | None:
        """Return one key's row, or None."""
        created = created_literal(connections[self.alias], meta.created)
        rows = self._select("{record}", IS_KEY, [meta.key_id, created])
        return KeyRow(meta.key_id, rows[0][0]) if rows else None

    def replace(self, row: KeyRow, record: EnvelopeKeyRecord) -> bool:
        """Put ``record`` in the place of exactly the text of ``row``; False if something else stands there by now."""
        with failures_translated(self.alias):
            shared = connections[self.alias]
            if shared.vendor == "sqlite":
                return _swap(shared, row, record)
            with private_connection(shared) as private:
                return _swap(private, row, record)

    def _scan(self, condition: str, parameters: list[Any]) -> Iterator[KeyRow]:
        page = self._page(condition, parameters)
        while page:
            for key_id, _, text in page:
                yield KeyRow(key_id, text)
            key_id, created, _ = page[-1]
            after = f"{condition} AND (id > %s OR (id = %s AND created < %s))"
            page = self._page(after, [*parameters, key_id, key_id, created])

    def _page(self, condition: str, parameters: list[Any]) -> list[tuple[Any, ...]]:
        created = "CAST(created AS text)" if connections[self.alias].vendor == "sqlite" else "created"
        order = f"ORDER BY id, encryption_key.created DESC LIMIT {ROWS_PER_QUERY}"
        return self._select(f"id, {created}, {{record}}", f"{condition} {order}", parameters)

    def _select(self, columns: str, condition: str, parameters: list[Any]) -> list[tuple[Any, ...]]:
        with failures_translated(self.alias):
            connection = connections[self.alias]
            columns = columns.format(record=record_text(connection.vendor))
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT {columns} FROM encryption_key WHERE {condition}", parameters)
                return list(cursor.fetchall())


def _swap(connection: BaseDatabaseWrapper, row: KeyRow, record: EnvelopeKeyRecord) -> bool:
    is_same = f"{record_text(connection.vendor)} = {_AS_TEXT.get(connection.vendor, '%s')}"
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE encryption_key SET key_record = %s WHERE {IS_KEY} AND {is_same}",
            [encode_key(record), row.key_id, created_literal(connection, record.created), row.text],
        )
        return bool(cursor.rowcount)
