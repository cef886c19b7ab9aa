"""Databases that tests make for themselves, beside the one that ``DATABASE_URL`` names."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta

ROOT = Path(__file__).resolve().parent.parent
VENDOR = connections["default"].vendor
WAITING = (
    "SELECT COUNT(*) FROM pg_locks WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"
    if VENDOR == "postgresql"
    else "SELECT COUNT(*) FROM information_schema.innodb_lock_waits JOIN information_schema.innodb_trx "
    "ON trx_id = blocking_trx_id WHERE trx_mysql_thread_id = CONNECTION_ID()"
)
"""Counts who waits for a row that this connection has locked, on PostgreSQL and MariaDB."""


@contextmanager
def another_alias(alias: str, **changes: Any) -> Iterator[str]:
    """Register ``alias``: the default database's settings with ``changes``."""
    connections.settings[alias] = {**copy.deepcopy(connections["default"].settings_dict), **changes}
    try:
        yield alias
    finally:
        forget_connection(alias)
        del connections.settings[alias]


def forget_connection(alias: str) -> None:
    """Close this thread's connection, inside a transaction or not."""
    connection = connections[alias]
    if connection.in_atomic_block:
        raise AssertionError(f"the test left a transaction of {alias!r} open")
    connection.close()
    delattr(connections._connections, alias)  # type: ignore[attr-defined]


def sqlite_file(path: Path) -> dict[str, Any]:
    """Return what to change to get a SQLite file."""
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path), "OPTIONS": {"timeout": 0.2}}


def as_asherah(**changes: Any) -> dict[str, Any]:
    """Return ``settings.ASHERAH`` with ``changes``."""
    return {**settings.ASHERAH, **changes}


def execute(alias: str, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
    """Send one statement as it is; return its rows."""
    with connections[alias].cursor() as cursor:
        cursor.execute(statement, parameters)
        return list(cursor.fetchall()) if cursor.description else []


def close_connections() -> None:
    """Close this thread's connections, those to databases in memory too, which Django would leave to the collector."""
    for connection in connections.all(initialized_only=True):
        BaseDatabaseWrapper.close(connection)


def in_thread(work: Callable[[], Any]) -> Any:
    """Run ``work`` in a thread of its own, with connections of its own, and return or raise what it does."""
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["value"] = work()
        except BaseException as exc:
            outcome["error"] = exc
        finally:
            close_connections()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(timeout=60)
    assert not thread.is_alive(), "the thread hangs"
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]


def wait_until(true: Callable[[], bool], every: float = 0.01) -> None:
    """Look again and again: a server needs a moment to notice that a client has gone."""
    pause = threading.Event()
    for _ in range(500):
        if true():
            return
        pause.wait(every)
    raise AssertionError("it never came true")


def run_django(code: str, url: str, *arguments: str, **variables: str) -> str:
    """Run ``code`` after ``django.setup()`` in a process whose default database is at ``url``; return its output."""
    environment = {
        **os.environ,
        "DATABASE_URL": url,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PYTHONWARNINGS": "error",
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, django; django.setup()\n{code}", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def url_of(alias: str) -> str:
    """Return the URL of the database that ``alias`` is connected to now."""
    at = connections[alias].settings_dict
    if connections[alias].vendor == "sqlite":
        return f"sqlite:///{at['NAME']}"
    scheme = "postgres" if connections[alias].vendor == "postgresql" else "mysql"
    user = quote(at["USER"]) + (f":{quote(at['PASSWORD'])}" if at["PASSWORD"] else "")
    return f"{scheme}://{user}@{at['HOST']}:{at['PORT']}/{at['NAME']}"


def record(created: int, fill: int = 0, parent: str | None = None, **changes: Any) -> EnvelopeKeyRecord:
    """Return a key record whose sealed key is 60 bytes of ``fill``."""
    above = KeyMeta(parent, created) if parent else None
    return EnvelopeKeyRecord(created=created, key=bytes([fill]) * 60, parent_key_meta=above, **changes)
