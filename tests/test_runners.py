"""Test runners as projects use them: Django's and pytest, one process and several, databases made anew and kept."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import ROOT, VENDOR

pytestmark = pytest.mark.slow

SETTINGS = """
import os, secrets
from tests.settings import *
from django_asherah.testing import FakeKMS

DATABASES["default"]["TEST"] = {"NAME": os.environ["RUNNERS_DATABASE"]}
del DATABASES["other"]
INSTALLED_APPS = ["plain_flush", *INSTALLED_APPS]  # Before the suite's own flush, which resets the engine.
MASTER_KEYS = {
    "fixed": {},
    "random": {"KMS_OPTIONS": {"key": secrets.token_hex(32)}},
    "fake": FakeKMS().settings,
}
ASHERAH = ASHERAH | MASTER_KEYS[os.environ.get("RUNNERS_KEY", "fixed")]
"""

HELPERS = """
from django_asherah import engine
from tests.testapp.models import Note


def require_keys_in_the_table():
    pk = Note.objects.create(body="x").pk
    with engine.own_keys():
        assert Note.objects.get(pk=pk).body == "x"
"""

FLUSHING = """
from django.test import TestCase, TransactionTestCase
from helpers import require_keys_in_the_table


class Plain(TestCase):
    def test_1(self):
        require_keys_in_the_table()

    def test_2(self):
        require_keys_in_the_table()


class Restored(TransactionTestCase):
    serialized_rollback = True

    def test_1(self):
        require_keys_in_the_table()

    def test_2(self):
        require_keys_in_the_table()


class SomeApps(TransactionTestCase):
    available_apps = ["plain_flush", "django_asherah", "tests.testapp"]

    def test_1(self):
        require_keys_in_the_table()

    def test_2(self):
        require_keys_in_the_table()


class ThenPlain(TransactionTestCase):
    def test_1(self):
        require_keys_in_the_table()
"""

KEEPING = """
import pytest
from helpers import require_keys_in_the_table
from django_asherah.testing import override_asherah


@pytest.fixture(scope="session", autouse=True)
def committed(django_db_setup, django_db_blocker):
    with django_db_blocker.unblock():
        require_keys_in_the_table()


@pytest.mark.django_db
def test_a_row():
    require_keys_in_the_table()


@pytest.mark.django_db
def test_keys_of_a_test_in_the_table():
    with override_asherah(METASTORE="database"):
        require_keys_in_the_table()
    with override_asherah(METASTORE="database"):
        require_keys_in_the_table()
"""


class Project:
    """A project's tests, run in a process of their own on a test database of their own."""

    def __init__(self, path: Path, database: str) -> None:
        self._path = path
        self._database = database
        (path / "runners_settings.py").write_text(SETTINGS)
        (path / "helpers.py").write_text(HELPERS)
        (path / "pytest.ini").write_text("[pytest]\n")
        commands = path / "plain_flush" / "management" / "commands"
        commands.mkdir(parents=True)
        for package in (commands, commands.parent, commands.parent.parent):
            (package / "__init__.py").write_text("")
        (commands / "flush.py").write_text("from django.core.management.commands.flush import Command as Command\n")

    def write(self, code: str) -> None:
        """Let ``code`` be its tests."""
        (self._path / "test_project.py").write_text(code)

    def django(self, *options: str, key: str = "fixed") -> subprocess.CompletedProcess[str]:
        """Run them with Django's runner."""
        return self._run("django", "test", "--noinput", *options, key=key)

    def pytest(self, *options: str, key: str = "fixed") -> subprocess.CompletedProcess[str]:
        """Run them with pytest."""
        return self._run(
            "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--ds", "runners_settings", *options, key=key
        )

    def _run(self, *command: str, key: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")} | {
            "DJANGO_SETTINGS_MODULE": "runners_settings",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{self._path}",
            "RUNNERS_DATABASE": self._database,
            "RUNNERS_KEY": key,
        }
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self._path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    number = os.environ.get("PYTEST_XDIST_WORKER", "")
    database = str(tmp_path / "test.sqlite3") if VENDOR == "sqlite" else f"test_asherah_runners_{os.getpid()}{number}"
    project = Project(tmp_path, database)
    yield project
    project.write("")
    project.pytest("--create-db")  # What was kept goes with this run.


def said(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


@pytest.mark.parametrize("options", [(), ("--parallel", "2"), ("--keepdb",)])
def test_djangos_runner_writes_nothing_under_keys_whose_rows_are_gone(
    project: Project, options: tuple[str, ...]
) -> None:
    project.write(FLUSHING)
    for _ in range(2 if "--keepdb" in options else 1):
        done = project.django(*options)
        assert "Ran 7 tests" in done.stderr, said(done)
        assert done.returncode == 0, said(done)


@pytest.mark.parametrize("options", [(), ("-n", "2"), ("--reuse-db",)])
def test_pytest_writes_nothing_under_keys_whose_rows_are_gone(project: Project, options: tuple[str, ...]) -> None:
    project.write(FLUSHING)
    for _ in range(2 if "--reuse-db" in options else 1):
        assert "7 passed" in said(done := project.pytest(*options)), said(done)


@pytest.mark.parametrize("key", ["fixed", "fake"])
@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_a_database_that_is_kept_is_used_again(project: Project, key: str, options: tuple[str, ...]) -> None:
    project.write(KEEPING)
    for _ in range(2):
        assert "2 passed" in said(done := project.pytest("--reuse-db", *options, key=key)), said(done)


def test_with_another_static_key_in_each_run_the_error_says_what_to_do(project: Project) -> None:
    project.write(KEEPING)
    assert "2 passed" in said(done := project.pytest("--reuse-db", key="random")), said(done)
    done = project.pytest("--reuse-db", key="random")
    assert "the static master key does not open it" in done.stdout, said(done)
    assert "a database that is kept (--reuse-db, --keepdb) needs the same key in every run" in done.stdout
    assert "2 passed" in said(done := project.pytest("--create-db", key="random")), said(done)
