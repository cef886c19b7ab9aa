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

from django_asherah.copying import ColumnCopy
from tests import settings as suite
from tests.databases import execute
from tests.interop.peers import locked
from tests.other_libraries import hyperscale, keys, page
from tests.other_libraries.page import LIBRARIES, Library

WITH_DATABASE = pytest.mark.django_db(transaction=True, available_apps=["django_asherah", "tests.testapp"])
"""Real transactions. A test drops its own table, so that few are left to be emptied, which is fast."""

LABEL = ("testapp", "patient")
KEYS = {"SECRET_KEY": suite.SECRET_KEY, **keys.settings("in use", "older")}
OLDER = {"SECRET_KEY": suite.SECRET_KEY, **keys.settings("older")}
LOST = {"SECRET_KEY": "lost", **keys.settings("lost")}
with locked():
    for names in (("in use", "older"), ("older",), ("lost",)):
        keys.write_keysets(*names)

NUMBERS = [f"900-12-{number:04}" for number in range(40)]


class Move:
    """A table of the page's model, which begins as it was before the page is followed."""

    def __init__(self, alias: str, model: str) -> None:
        self.alias, self._source = alias, model
        self.load()
        self.canary: dict[Any, Any] = {}
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
        return [getattr(row, name) for row in self.rows.only(name)]

    def raw(self, name: str) -> list[Any]:
        """Return what a column holds."""
        return [raw for (raw,) in execute(self.alias, f"SELECT {name} FROM testapp_patient ORDER BY id")]

    def save(self, *values: Any) -> list[int]:
        """Make rows by the old field, the first ever of which is the canary; return their primary keys."""
        pks = [self.rows.create(ssn=value).pk for value in values]
        self.canary = self.canary or {pks[0]: values[0]}
        return pks

    def put(self, *stored: Any) -> list[int]:
        """Make rows that hold this in the old column, behind its field's back; return their primary keys."""
        pks = self.save(*["anything"] * len(stored))
        for pk, each in zip(pks, stored, strict=True):
            execute(self.alias, "UPDATE testapp_patient SET ssn = %s WHERE id = %s", [each, pk])
        return pks

    def migrate(self, *operations: Operation) -> None:
        for operation in operations:
            after = self.state.clone()
            operation.state_forwards("testapp", after)
            with connections[self.alias].schema_editor() as editor:
                operation.database_forwards("testapp", editor, self.state, after)
            self.state = after

    def add_column(self) -> None:
        """Take the page's first step."""
        self.migrate(migrations.AddField("Patient", "ssn_asherah", self._added))

    def shell(self, code: str) -> Any:
        """Run what the page runs in a shell, after its first block there."""
        names = {"Patient": self.model, "ColumnCopy": ColumnCopy, "canary": self.canary, "ssn": self.by()}
        return page.shell(code.replace(page.CANARY, "canary"), names)

    def by(self, **options: Any) -> ColumnCopy:
        """Return what copies, with ``options`` that the page's first block does not have."""
        return ColumnCopy(self.model, "ssn", "ssn_asherah", using=self.alias, **{"canary": self.canary, **options})

    def copy(self) -> dict[int, str]:
        return self.shell(page.COPY)

    def compare(self) -> dict[int, str]:
        return self.shell(page.COMPARE)

    def changes(self, field: models.Field[Any, Any]) -> dict[str, Any]:
        """Return what ``makemigrations`` would find to do for code that has ``field`` alone."""
        code = ProjectState()
        pk = self.state.models[LABEL].fields["id"]
        code.add_model(ModelState(LABEL[0], "Patient", [("id", pk), ("ssn", field)]))
        return MigrationAutodetector(self.state, code).changes(MigrationGraph())


def params(libraries: list[Library]) -> list[Any]:
    assert libraries
    return [
        pytest.param(
            library,
            id=library.package,
            marks=pytest.mark.skipif(
                not library.is_here, reason=f"{library.package} {library.release} can't be installed with this Django"
            ),
        )
        for library in libraries
    ]


def only(libraries: list[Library]) -> pytest.MarkDecorator:
    """Mark a test as one of some libraries."""
    return pytest.mark.parametrize("library", params(libraries), indirect=True)


@pytest.fixture(params=params(LIBRARIES))
def library(request: pytest.FixtureRequest) -> Library:
    return request.param


@pytest.fixture(autouse=True)
def _in_a_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let hyperscale-crypto take keys in clear, and let it end the thread that looks for newer ones."""
    from hyperscale.crypto import keysets

    monkeypatch.setenv("ENV", "test")
    yield
    keysets.reset()


@pytest.fixture
def alias(transactional_db: None) -> str:
    return "default"


@pytest.fixture
def make_move(alias: str, library: Library) -> Iterator[Callable[..., Move]]:
    """Make the table of a library's field, with ``changes`` to the page's model; it goes with the test."""
    with ExitStack() as stack:

        def make(*changes: tuple[str, str]) -> Move:
            model = page.model_for(library)
            for old, new in changes:
                assert old in model
                model = model.replace(old, new)
            move = Move(alias, model)
            stack.callback(execute, alias, "DROP TABLE testapp_patient")
            return move

        yield make


def store(python: str | Path, settings: dict[str, Any], values: list[str], *libraries: Library) -> dict[str, list[Any]]:
    """Return what the libraries' fields store for values, in a process with ``settings``."""
    done = subprocess.run(
        [str(python), "-I", str(Path(__file__).with_name("store.py"))],
        input=json.dumps(
            {
                "settings": settings,
                "path": [str(hyperscale.install())],
                "fields": {library.package: [library.imports, library.field] for library in libraries},
                "values": values,
            }
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    return {
        package: [raw if kind == "text" else base64.b64decode(raw) for kind, raw in stored]
        for package, stored in answer.items()
    }


@pytest.fixture(scope="session")
def under_lost_keys() -> dict[str, list[Any]]:
    """What each library stores for ``NUMBERS`` under keys that nobody has any more."""
    return store(sys.executable, LOST, NUMBERS, *[library for library in LIBRARIES if library.is_here])


@pytest.fixture(scope="session")
def under_older_keys() -> dict[str, list[Any]]:
    """What each library stores for ``NUMBERS`` under the older of two keys, where it may have two."""
    return store(sys.executable, OLDER, NUMBERS, *[library for library in LIBRARIES if library.is_here])
