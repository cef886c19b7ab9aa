"""Fixtures of the whole suite."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from pytest_django import DjangoDbBlocker, Settings

from django_asherah import engine
from django_asherah.models import EncryptionKey
from tests.databases import VENDOR, another_alias, as_asherah, execute, sqlite_file
from tests.interop.peers import Peer
from tests.moto_servers import MotoRegion, moto_region
from tests.testapp.models import Clinic, Note

STARTS_A_PROCESS = {"subprocess.Popen", "os.fork", "os.posix_spawn", MotoRegion.STARTED}
_started: list[str] = []


def _note_processes(event: str, arguments: tuple[Any, ...]) -> None:
    if event in STARTS_A_PROCESS:
        _started.append(event)


sys.addaudithook(_note_processes)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    _started.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Hold a test to what its mark says: one that is not slow starts no process."""
    ended = yield
    if _started and not item.get_closest_marker("slow"):
        raise AssertionError(f"{item.nodeid} starts a process ({_started[0]}): mark it with pytest.mark.slow")
    return ended


@pytest.fixture(autouse=True)
def _empty_key_table(request: pytest.FixtureRequest) -> None:
    """Begin a test of real transactions without keys: those of the tests before it were committed on their own."""
    mark = request.node.get_closest_marker("django_db")
    if "transactional_db" in request.fixturenames or (mark is not None and mark.kwargs.get("transaction")):
        request.getfixturevalue("transactional_db")
        EncryptionKey.objects.all().delete()
        engine.reset()


@pytest.fixture(autouse=True, scope="module")
def _logging_left_as_it_was() -> Iterator[None]:
    """Fail the module that changes logging for the ones after it, which then miss warnings for no reason of theirs."""

    def state() -> tuple[int, int, bool]:
        ours = logging.getLogger("django_asherah")
        return logging.root.level, logging.root.manager.disable, ours.propagate and not ours.disabled

    before = state()
    yield
    assert state() == before


@pytest.fixture
def make_alias(transactional_db: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Callable[..., str]]:
    """Register an alias for the length of the test: the default database's settings with changes."""
    with ExitStack() as stack:
        # Django's test case would refuse aliases that it did not know when it began.
        stack.enter_context(django_db_blocker.unblock())
        yield lambda alias, **changes: stack.enter_context(another_alias(alias, **changes))


@pytest.fixture
def file_alias(tmp_path: Path, make_alias: Callable[..., str]) -> str:
    """A SQLite file with the key table and one table of data: the one SQLite that processes and threads share."""
    alias = make_alias("file", **sqlite_file(tmp_path / "db.sqlite3"))
    with connections[alias].schema_editor() as editor:
        editor.create_model(EncryptionKey)
        editor.create_model(Note)
    return alias


@pytest.fixture
def empty_alias(make_alias: Callable[..., str], tmp_path: Path) -> Iterator[str]:
    """A database of the kind under test that has no tables."""
    if VENDOR == "sqlite":
        yield make_alias("empty", **sqlite_file(tmp_path / "empty.sqlite3"))
    elif VENDOR == "postgresql":
        execute("default", "CREATE SCHEMA empty")
        yield make_alias("empty", OPTIONS={"options": "-c search_path=empty"})
        execute("default", "DROP SCHEMA empty CASCADE")
    else:
        name = f"{connections['default'].settings_dict['NAME']}_empty"
        execute("default", f"CREATE DATABASE {name}")
        yield make_alias("empty", NAME=name)
        execute("default", f"DROP DATABASE {name}")


@pytest.fixture(params=["default", "file"] if VENDOR == "sqlite" else ["default"])
def alias(request: pytest.FixtureRequest, transactional_db: None, settings: Settings) -> str:
    """The database of both keys and data: the one under test, and on SQLite a file as well as one in memory."""
    alias: str = request.getfixturevalue("file_alias") if request.param == "file" else request.param
    settings.ASHERAH = as_asherah(DATABASE=alias)
    return alias


@pytest.fixture
def shared_alias(request: pytest.FixtureRequest, transactional_db: None) -> str:
    """The database under test, in a form that several processes can open."""
    alias: str = request.getfixturevalue("file_alias") if VENDOR == "sqlite" else "default"
    return alias


@pytest.fixture
def start() -> Iterator[Callable[..., Peer]]:
    """Start a peer, ready to work unless ``wait`` is False; all of them end with the test."""
    peers: list[Peer] = []

    def start(core: str, config: dict[str, Any], *, wait: bool = True, **environment: str) -> Peer:
        peers.append(Peer(core, config, **environment))
        if wait:
            assert peers[-1].end() == "ready"
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()


@pytest.fixture(scope="session")
def west() -> Iterator[MotoRegion]:
    """One KMS region, once a test process."""
    with moto_region("us-west-2") as server:
        yield server


@pytest.fixture(scope="session")
def east() -> Iterator[MotoRegion]:
    """Another one."""
    with moto_region("us-east-1") as server:
        yield server


@pytest.fixture
def north(db: None) -> Clinic:
    """A tenant."""
    return Clinic.objects.create(name="north")


@pytest.fixture
def south(db: None) -> Clinic:
    """Another one."""
    return Clinic.objects.create(name="south")
