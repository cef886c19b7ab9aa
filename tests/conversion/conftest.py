"""Tables that the tests migrate, without an app of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from django.db import connections, models
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ModelState, ProjectState

from django_asherah import lifecycle
from django_asherah.fields import EncryptedFieldMixin
from django_asherah.lifecycle.columns import Column
from django_asherah.lifecycle.ledger import PREFIX
from django_asherah.lifecycle.progress import tell_nobody
from django_asherah.lifecycle.reencryption import Options, ReencryptionReport, _Rewriter
from django_asherah.operations import DecryptField, EncryptField
from tests.databases import execute


class Table:
    """One table of a model with a field ``secret``, as migrations see it."""

    label = ("moved", "Thing")

    def __init__(self, alias: str, secret: models.Field[Any, Any], fields: dict[str, Any], options: Any) -> None:
        self.alias = alias
        self.state = ProjectState()
        own = fields or {"id": models.BigAutoField(primary_key=True)}
        self.state.add_model(ModelState("moved", "Thing", [*own.items(), ("secret", secret)], options))
        with connections[alias].schema_editor() as editor:
            editor.create_model(self.model)

    @property
    def model(self) -> Any:
        """The model as the migrations so far make it."""
        return self.state.apps.get_model(*self.label)

    @property
    def field(self) -> Any:
        return self.model._meta.get_field("secret")

    @property
    def column(self) -> Column:
        """The encrypted column."""
        assert isinstance(self.field, EncryptedFieldMixin)
        return Column(self.model, self.field, self.alias)

    def reencrypt(self) -> ReencryptionReport:
        """Rewrite every value under a new key."""
        lifecycle.rotate()
        report = ReencryptionReport()
        _Rewriter(self.column, Options(), report, tell_nobody).run()
        return report

    def save(self, *values: Any) -> list[Any]:
        """Save a row for each value through the ORM."""
        return [self.model.objects.using(self.alias).create(secret=value) for value in values]

    def values(self) -> list[Any]:
        """Return the values through the ORM."""
        return list(self.model.objects.using(self.alias).order_by("pk").values_list("secret", flat=True))

    def raw(self) -> list[Any]:
        """Return what the column holds."""
        name = connections[self.alias].ops.quote_name("secret")
        key = self.model._meta.pk.column or "tenant"
        return [value for (value,) in execute(self.alias, f"SELECT {name} FROM moved_thing ORDER BY {key}")]

    def set_raw(self, row: Any, value: Any) -> None:
        """Write behind everybody's back, as code that knows nothing of encryption does."""
        execute(self.alias, "UPDATE moved_thing SET secret = %s WHERE id = %s", [value, row.pk])

    def encrypt(self, field: models.Field[Any, Any]) -> None:
        """Run an ``EncryptField``."""
        self.migrate(EncryptField("thing", "secret", field))

    def decrypt(self, field: models.Field[Any, Any]) -> None:
        """Run a ``DecryptField``."""
        self.migrate(DecryptField("thing", "secret", field))

    def migrate(self, operation: Operation, *, atomic: bool = False) -> None:
        """Run an operation, and keep its state if it succeeds."""
        after = self.state.clone()
        operation.state_forwards("moved", after)
        with connections[self.alias].schema_editor(atomic=atomic) as editor:
            operation.database_forwards("moved", editor, self.state, after)
        self.state = after

    def reverse(self, operation: Operation, before: ProjectState) -> None:
        """Run an operation backwards."""
        with connections[self.alias].schema_editor(atomic=False) as editor:
            operation.database_backwards("moved", editor, self.state, before)
        self.state = before

    def ledgers(self) -> list[str]:
        """Return the names of all ledgers."""
        connection = connections[self.alias]
        with connection.cursor() as cursor:
            return [name for name in connection.introspection.table_names(cursor) if name.startswith(PREFIX)]

    def drop(self) -> None:
        for name in [*self.ledgers(), "moved_thing"]:
            execute(self.alias, f"DROP TABLE IF EXISTS {name}")


@pytest.fixture
def make_table(alias: str) -> Iterator[Callable[..., Table]]:
    """Make the table; it goes with the test."""
    with ExitStack() as stack:

        def make(secret: models.Field[Any, Any], fields: Any = None, at: str = alias, **options: Any) -> Table:
            table = Table(at, secret, fields or {}, options)
            stack.callback(table.drop)
            return table

        yield make


class Crash(BaseException):
    """Stands for the end of the process."""


class CrashAt:
    """Ends the process before the statement of a given number."""

    def __init__(self, alias: str, number: int) -> None:
        self.connection, self.left = connections[alias], number

    def __enter__(self) -> CrashAt:
        self._wrapper = self.connection.execute_wrapper(self._count)
        self._wrapper.__enter__()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._wrapper.__exit__(*exc_info)

    def _count(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if not self.left:
            raise Crash
        self.left -= 1
        return execute(sql, params, many, context)
