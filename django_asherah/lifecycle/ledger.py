"""What a conversion has written so far, so that an interrupted one knows its own work from what looks like it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any, Literal

from django.db import connections, models
from django.db.models.constants import OnConflict

from django_asherah.fields import EncryptedFieldMixin
from django_asherah.lifecycle.columns import Column, Row
from django_asherah.lifecycle.giving_way import Result, insist

Direction = Literal["encrypt", "decrypt"]

PREFIX = "asherah_moving_"
"""Of the tables' names. It may never change: an interrupted conversion would not find its own ledger again."""


class Ledger:
    """A table beside the data, of digests of (primary key, value written).

    It is filled in the transactions that write the values, so it is right after a crash at any moment. Whatever else
    is written to the column has no digest here, be it a record or its exact likeness. The table outlives the
    conversion until its migration is recorded as applied, because only then it can't be started again.

    It is no model of this app's migrations. Its rows must commit with the data, so it has to be in the data's database,
    where a router may keep this app's tables out, and no migration of the data's app waits for one of this app. It
    must also leave nothing behind: dropping the table is what removes the digests of decrypted values, where deleted
    rows could be found in the database's files for long.
    """

    def __init__(self, column: Column, direction: Direction) -> None:
        self._connection = connections[column.alias]
        self._label = column.label
        self.name = ledger_name(column.model, column.field, direction)
        self._table = self._connection.ops.quote_name(self.name)

    def exists(self) -> bool:
        """Tell whether a conversion has begun and its end is not certain."""

        def ask() -> bool:
            with self._connection.cursor() as cursor:
                return self.name in self._connection.introspection.table_names(cursor)

        return self._insist(ask)

    def create(self) -> None:
        """Make the table, if it isn't there."""
        if not self.exists():
            self._execute(f"CREATE TABLE {self._table} (digest char(64) NOT NULL PRIMARY KEY)")

    def drop(self) -> None:
        """Remove the table, if it is there. After a decryption it holds digests of values: none may stay behind."""
        if self.exists():
            self._execute(f"DROP TABLE {self._table}")

    def known(self, rows: Iterable[Row]) -> set[Any]:
        """Return the primary keys of those rows that this conversion wrote as they are."""
        digests = {digest(row): row.pk for row in rows}
        placeholders = ", ".join(["%s"] * len(digests))
        found = self._execute(f"SELECT digest FROM {self._table} WHERE digest IN ({placeholders})", list(digests))
        return {digests[name] for (name,) in found}

    def add(self, rows: Iterable[Row]) -> None:
        """Note that these rows are being written so, by the transaction that is open."""
        digests = [digest(row) for row in rows]
        operations = self._connection.ops
        insert = operations.insert_statement(on_conflict=OnConflict.IGNORE)
        ignore = operations.on_conflict_suffix_sql([], OnConflict.IGNORE, [], [])
        placeholders = ", ".join(["(%s)"] * len(digests))
        self._execute(f"{insert} {self._table} (digest) VALUES {placeholders} {ignore}", digests)

    def _execute(self, statement: str, parameters: list[str] | None = None) -> list[tuple[Any, ...]]:
        def execute() -> list[tuple[Any, ...]]:
            with self._connection.cursor() as cursor:
                cursor.execute(statement, parameters)
                return list(cursor.fetchall()) if cursor.description else []

        return self._insist(execute)

    def _insist(self, work: Callable[[], Result]) -> Result:
        return insist(self._connection.alias, work, f"{self._label}: its ledger, table {self.name}")


def digest(row: Row) -> str:
    """Return what stands for a row and its value."""
    parts = row.pk if isinstance(row.pk, tuple) else (row.pk,)
    content = row.raw.encode() if isinstance(row.raw, str) else bytes(row.raw)
    return sha256("\x1f".join(map(str, parts)).encode() + b"\x1e" + content).hexdigest()


def ledger_name(model: type[models.Model], field: models.Field[Any, Any], direction: Direction) -> str:
    """Return the name of a column's ledger: 44 characters, which every database allows."""
    column = f"{model._meta.db_table}\x1f{field.column}\x1f{direction}"
    return PREFIX + sha256(column.encode()).hexdigest()[:29]


def drop_finished(alias: str, apps: Any) -> None:
    """Remove the ledgers of conversions that are recorded as applied.

    Args:
        alias: the database.
        apps: the models as all applied migrations make them. A column that is encrypted there has been encrypted, one
            that isn't has been decrypted; an unfinished conversion shows by the opposite.
    """
    connection = connections[alias]
    with connection.cursor() as cursor:
        ledgers = {name for name in connection.introspection.table_names(cursor) if name.startswith(PREFIX)}
    if not ledgers:
        return
    unfinished = set()
    for model in apps.get_models(include_auto_created=True):
        for field in model._meta.local_concrete_fields:
            pending: Direction = "decrypt" if isinstance(field, EncryptedFieldMixin) else "encrypt"
            unfinished.add(ledger_name(model, field, pending))
    for name in ledgers - unfinished:

        def drop(name: str = name) -> None:
            with connection.cursor() as cursor:
                cursor.execute(f"DROP TABLE {connection.ops.quote_name(name)}")

        insist(alias, drop, f"the ledger of a conversion that is done, table {name}")
