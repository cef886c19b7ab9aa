"""The key table as a whole: what the lifecycle does with it, and no metastore ever does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import connections

from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, encode_key
from django_asherah.metastores.database import RECORD_TEXT, DatabaseMetastore, private_connection, timestamp

PAGE = 1000
"""Rows read at a time."""


class KeyTable:
    """Every row of the key table of one database alias. Touches only the three columns that the SDKs know."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._metastore = DatabaseMetastore(alias)

    def scan(self) -> Iterator[tuple[str, str]]:
        """Yield (key id, record text) of every row, in constant memory: by id, each id's newest first."""
        return self._scan("1 = 1", [])

    def children(self, parent: KeyMeta) -> Iterator[tuple[str, str]]:
        """Yield (key id, record text) of every row that names ``parent`` as its parent, and perhaps of some more.

        The database looks at the record's text: parsing JSON, it would stumble over a record that is broken.
        """
        text = "BINARY" if connections[self.alias].vendor == "mysql" else "text"
        pattern = f'%"ParentKeyMeta"%"Created":%{parent.created}%'
        return self._scan(f"CAST(key_record AS {text}) LIKE %s", [pattern])

    def versions(self, key_id: str) -> list[str]:
        """Return the record text of every row of one key id, the newest first."""
        with self._metastore.failures_translated():
            connection = connections[self.alias]
            with connection.cursor() as cursor:
                cursor.execute(
                    f"SELECT {record_text(connection.vendor)} FROM encryption_key WHERE id = %s ORDER BY created DESC",
                    [key_id],
                )
                return [text_of(text) for (text,) in cursor.fetchall()]

    def count(self) -> int:
        """Return the number of rows."""
        with self._metastore.failures_translated(), connections[self.alias].cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM encryption_key")
            return int(cursor.fetchone()[0])

    def read(self, meta: KeyMeta) -> str | None:
        """Return the text of one key's record, for :meth:`replace`."""
        with self._metastore.failures_translated():
            connection = connections[self.alias]
            with connection.cursor() as cursor:
                cursor.execute(
                    f"SELECT {record_text(connection.vendor)} FROM encryption_key WHERE id = %s AND created = %s",
                    [meta.key_id, timestamp(connection, meta.created)],
                )
                row = cursor.fetchone()
        return None if row is None else text_of(row[0])

    def replace(self, meta: KeyMeta, old: str, new: EnvelopeKeyRecord) -> bool:
        """Put ``new`` in the place of exactly the text ``old``; False if something else stands there by now."""
        with self._metastore.failures_translated():
            shared = connections[self.alias]
            if shared.vendor == "sqlite":
                return _swap(shared, meta, old, new)
            with private_connection(shared) as private:
                return _swap(private, meta, old, new)

    def _scan(self, condition: str, parameters: list[Any]) -> Iterator[tuple[str, str]]:
        page = self._page(condition, parameters)
        while page:
            for key_id, _, text in page:
                yield key_id, text_of(text)
            key_id, created, _ = page[-1]
            after = f"{condition} AND (id > %s OR (id = %s AND created < %s))"
            page = self._page(after, [*parameters, key_id, key_id, created])

    def _page(self, condition: str, parameters: list[Any]) -> list[tuple[str, Any, str | bytes]]:
        with self._metastore.failures_translated():
            connection = connections[self.alias]
            created = "CAST(created AS text)" if connection.vendor == "sqlite" else "created"
            with connection.cursor() as cursor:
                cursor.execute(
                    f"SELECT id, {created}, {record_text(connection.vendor)} FROM encryption_key WHERE {condition} "
                    f"ORDER BY id, encryption_key.created DESC LIMIT {PAGE}",
                    parameters,
                )
                return list(cursor.fetchall())


def _swap(connection: Any, meta: KeyMeta, old: str, new: EnvelopeKeyRecord) -> bool:
    # Byte for byte on every backend: MySQL's collations would take two records for the same.
    cast = {"mysql": "CAST(%s AS BINARY)", "sqlite": "CAST(%s AS blob)"}.get(connection.vendor, "%s")
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE encryption_key SET key_record = %s WHERE id = %s AND created = %s "
            f"AND {record_text(connection.vendor)} = {cast}",
            [encode_key(new), meta.key_id, timestamp(connection, meta.created), old],
        )
        return bool(cursor.rowcount)


def record_text(vendor: str) -> str:
    """Return the SQL for a record's text as it is stored, whatever the column's type."""
    return "CAST(key_record AS BINARY)" if vendor == "mysql" else RECORD_TEXT.get(vendor, "key_record")


def text_of(value: str | bytes) -> str:
    """Return what :func:`record_text` gave as text."""
    return value if isinstance(value, str) else value.decode(errors="replace")
