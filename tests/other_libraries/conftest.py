"""A table on its way from another library's field to ours, by the code of the page."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from django.db import connections, migrations, models
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.graph import MigrationGraph
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ModelState, ProjectState
from django.test.utils import isolate_apps

from tests import settings as suite
from tests.databases import execute
from tests.other_libraries import page
from tests.other_libraries.page import FIELDS, LIBRARIES, Library

WITH_DATABASE = pytest.mark.django_db(transaction=True, available_apps=["django_asherah", "tests.testapp"])
"""Real transactions. A test drops its own table, so that few are left to be emptied, which is fast."""

LABEL = ("testapp", "patient")
KEYS = {
    "SECRET_KEY": suite.SECRET_KEY,
    "CRYPTOGRAPHY_KEY": suite.CRYPTOGRAPHY_KEY,
    "FERNET_KEYS": suite.FERNET_KEYS,
    "FIELD_ENCRYPTION_KEY": suite.FIELD_ENCRYPTION_KEY,
    "SALT_KEY": suite.SALT_KEY,
}
OLDER = {name: keys[1:] if isinstance(keys, list) else keys for name, keys in KEYS.items()}
LOST = {
    "SECRET_KEY": "lost",
    "CRYPTOGRAPHY_KEY": "lost",
    "FERNET_KEYS": ["lost"],
    "FIELD_ENCRYPTION_KEY": [base64.urlsafe_b64encode(b"lost".ljust(32)).decode()],
    "SALT_KEY": ["lost"],
}


class Move:
    """A table of the page's model, which begins as it was before the page is followed."""

    def __init__(self, alias: str, model: str, code: str) -> None:
        self.alias, self._source = alias, model
        self.load()
        self.code = page.run(code)
        self.state = ProjectState()
        state = ModelState.from_model(self.model)
        self._added = state.fields.pop("ssn_asherah")
        self.state.add_model(state)
        with connections[alias].schema_editor() as editor:
            editor.create_model(self.state.apps.get_model(*LABEL))

    def load(self) -> None:
        """Make the page's model: its old field reads the settings, as in a process of its own."""
        with isolate_apps("tests.testapp"):
            self.model: Any = page.run(self._source, __name__="tests.testapp.models")["Patient"]

    @property
    def rows(self) -> Any:
        """All rows, of the model as the migrations so far make it, whose ``save()`` is the plain one."""
        return self.state.apps.get_model(*LABEL)._base_manager.using(self.alias).order_by("pk")

    def values(self, name: str) -> list[Any]:
        return list(self.rows.values_list(name, flat=True))

    def raw(self, name: str) -> list[Any]:
        """Return what a column holds."""
        return [raw for (raw,) in execute(self.alias, f"SELECT {name} FROM testapp_patient ORDER BY id")]

    def save(self, *values: Any) -> list[int]:
        """Make rows by the old field; return their primary keys."""
        return [self.rows.create(ssn=value).pk for value in values]

    def put(self, pk: int, stored: Any) -> None:
        """Write into the old column behind its field's back."""
        execute(self.alias, "UPDATE testapp_patient SET ssn = %s WHERE id = %s", [stored, pk])

    def migrate(self, *operations: Operation) -> None:
        for operation in operations:
            after = self.state.clone()
            operation.state_forwards("testapp", after)
            with connections[self.alias].schema_editor(atomic=False) as editor:
                operation.database_forwards("testapp", editor, self.state, after)
            self.state = after

    def add_column(self) -> None:
        """Take the page's first step."""
        self.migrate(migrations.AddField("Patient", "ssn_asherah", self._added))

    def shell(self, code: str) -> Any:
        """Run what the page runs in a shell."""
        return page.shell(code, Patient=self.model, copy=self.code["copy"], unlike=self.code["unlike"])

    def copy(self, **options: Any) -> dict[int, str]:
        """Copy as the page's shell does, or with ``options``."""
        return self.code["copy"](self.model, "ssn", "ssn_asherah", **options) if options else self.shell(page.COPY)

    def unlike(self) -> list[int]:
        return self.shell(page.COMPARE)

    def changes(self, field: models.Field[Any, Any]) -> dict[str, Any]:
        """Return what ``makemigrations`` would find to do for code that has ``field`` alone."""
        code = ProjectState()
        pk = self.state.models[LABEL].fields["id"]
        code.add_model(ModelState(LABEL[0], "Patient", [("id", pk), ("ssn", field)]))
        return MigrationAutodetector(self.state, code).changes(MigrationGraph())


def only(libraries: list[Library]) -> pytest.MarkDecorator:
    """Mark a test as one of some libraries."""
    assert libraries
    return pytest.mark.parametrize("library", libraries, ids=lambda library: library.package, indirect=True)


@pytest.fixture(params=LIBRARIES, ids=lambda library: library.package)
def library(request: pytest.FixtureRequest) -> Library:
    return request.param


@pytest.fixture
def alias(transactional_db: None) -> str:
    return "default"


@pytest.fixture
def make_move(alias: str, library: Library) -> Iterator[Callable[..., Move]]:
    """Make the table of a library's field, with ``changes`` to the page's code; it goes with the test."""
    with ExitStack() as stack:

        def make(*changes: tuple[str, str]) -> Move:
            model, code = page.model_for(library), page.CODE
            for old, new in changes:
                assert old in model + code
                model, code = model.replace(old, new), code.replace(old, new)
            move = Move(alias, model, code)
            stack.callback(execute, alias, "DROP TABLE testapp_patient")
            return move

        yield make


def store(python: str | Path, settings: dict[str, Any], value: str, *packages: str) -> dict[str, Any]:
    """Return what the packages' fields store for a value, in a process with ``settings``."""
    fields = {package: FIELDS[package] for package in packages}
    done = subprocess.run(
        [str(python), "-I", str(Path(__file__).with_name("store.py"))],
        input=json.dumps({"settings": settings, "fields": fields, "value": value}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    stored = json.loads(done.stdout)
    return {package: raw if kind == "text" else base64.b64decode(raw) for package, (kind, raw) in stored.items()}


@pytest.fixture(scope="session")
def under_lost_keys() -> dict[str, Any]:
    """What each library stores for "lost" under keys that nobody has any more."""
    return store(sys.executable, LOST, "lost", *FIELDS)


@pytest.fixture(scope="session")
def under_older_keys() -> dict[str, Any]:
    """What each library stores for "older" under the older of two keys, where it may have two."""
    return store(sys.executable, OLDER, "older", *FIELDS)
