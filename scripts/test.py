"""Run the tests on SQLite, and on every database server that answers; with ``--quick``, the quick ones on SQLite alone.

``TEST_POSTGRES_URL``, ``TEST_MARIADB_URL`` and ``TEST_BROKER_URL`` (RabbitMQ, for Celery) say where the servers are. A
server that does not answer is skipped and named at the end, and so is native code that isn't built; with ``CI`` set it
is a failure. With ``--newest`` CI tests the newest Django on PostgreSQL, in an environment of its own;
``TEST_NEWEST_APART`` leaves out here what that runs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import environ

ROOT = Path(__file__).resolve().parent.parent
SQLITE = "sqlite://:memory:"
NAME = os.environ.get("TEST_DATABASE_NAME", "asherah")
SERVERS = {
    "PostgreSQL": os.environ.get("TEST_POSTGRES_URL", f"postgres://postgres@127.0.0.1:5432/{NAME}"),
    "MariaDB": os.environ.get("TEST_MARIADB_URL", f"mysql://root@127.0.0.1:3306/{NAME}"),
}
BROKER = os.environ.get("TEST_BROKER_URL", "amqp://guest:guest@127.0.0.1:5672//")
PROGRAMS = {
    "chromium": "in a browser",
    "mariadbd": "with a MariaDB server of their own",
    "pgbouncer": "behind PgBouncer",
    "apache2": "in Apache with mod_wsgi",
}
LEAST_COVERAGE = 98

DYNAMODB = "metastores/test_dynamodb.py"
KNOW_NO_DATABASE = (
    *("envelope", "kms", "typing", "vectors"),
    *("fields/test_template.py", DYNAMODB, "other_libraries/test_releases.py", "threats/test_page.py"),
    *(f"copying/test_{name}.py" for name in ("chances", "plausibility", "shapes")),
    *(f"files/test_{name}.py" for name in ("failed_saves", "s3", "s3_memory", "servers", "sizes")),
    *(f"hostile/test_{name}.py" for name in ("corpus", "mutations")),
    *(f"leaks/test_{name}.py" for name in ("core_dumps", "engine", "kms", "native")),
    *(f"test_{name}.py" for name in ("benchmarks", "celery", "conf", "demo", "imports", "packaging", "providers")),
    *(f"test_{name}.py" for name in ("runners", "testing", "tutorial", "wheel")),
)
"""Know no database, or SQLite alone; run once, with SQLite."""

DIFFERS_BY_SERVER = (
    "conversion",
    "dumps",
    "fields/test_packets.py",
    "lifecycle/test_verify.py",
    "metastores",
    "test_checks.py",
)
"""Run code that is there for a server, whose coverage counts. All else is traced once, with SQLite: tracing is slow."""


KNOW_NO_DJANGO = (
    *("deploy", "envelope", "faults", "hostile", "interop", "kms", DYNAMODB),
    *(f"test_{name}.py" for name in ("benchmarks", "packaging", "runners", "wheel")),
)
"""Depend on no version of Django; not run with the newest."""


def main() -> int:
    """Run what is asked for; return the exit code."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["--newest"]:
        return _pytest(SERVERS["PostgreSQL"], ["-m", "not memory", *_without(KNOW_NO_DJANGO), *arguments[1:]])
    return _quick(arguments[1:]) if arguments[:1] == ["--quick"] else _all(arguments)


def _quick(arguments: list[str]) -> int:
    failed = _pytest(SQLITE, ["-m", "not slow", *arguments])
    print("\nNOT RUN: the tests marked slow, which start processes, servers, browsers or builds, or take long")
    print("NOT RUN: the tests on " + " and ".join(SERVERS) + ", and coverage")
    return failed


def _all(arguments: list[str]) -> int:
    missing: dict[str, str] = {}
    failed = []
    _run(["coverage", "erase"])
    for name, url in {"SQLite": SQLITE, **SERVERS}.items():
        reason = _why_not(name, url)
        if reason:
            missing[name] = reason
            continue
        for title, words, traced in _runs(name, arguments):
            print(f"\n== {title}", flush=True)
            if _pytest(url, words, traced=traced):
                failed.append(title)
    if reason := _why_no_broker():
        missing["Celery with RabbitMQ"] = reason
    if not find_spec("django_asherah_native"):
        missing["the native code"] = "make native builds it"
    return _report(missing, failed, partial=bool(arguments))


def _runs(name: str, arguments: list[str]) -> list[tuple[str, list[str], bool]]:
    """Return the title and words of each run of pytest on a database, and whether coverage is traced in it."""
    if arguments:
        return [(name, arguments, True)]
    if name == "SQLite":
        return [(name, ["-m", "not memory"], True), (f"{name}, memory", ["-m", "memory"], False)]
    differs = [f"tests/{path}" for path in DIFFERS_BY_SERVER]
    own = (f"{name}, code of its own", ["-m", "not memory", *_without([DYNAMODB]), *differs], True)
    if name == "PostgreSQL" and os.environ.get("TEST_NEWEST_APART"):
        others = [f"tests/{path}" for path in KNOW_NO_DJANGO if path not in KNOW_NO_DATABASE]
        others += _without(KNOW_NO_DATABASE)
        return [own, (f"{name}, what depends on no version of Django", ["-m", "not memory", *others], False)]
    others = _without(KNOW_NO_DATABASE + DIFFERS_BY_SERVER)
    return [own, (f"{name}, all else", ["-m", "not memory", *others], False)]


def _without(paths: Iterable[str]) -> list[str]:
    return [f"--ignore=tests/{path}" for path in paths]


def _pytest(url: str, arguments: list[str], *, traced: bool = False) -> int:
    command = ["pytest", "-q", "-n", os.environ.get("TEST_PROCESSES", "2"), *arguments]
    return _run(["coverage", "run", "-m", *command] if traced else command, DATABASE_URL=url)


def _run(command: list[str], **variables: str) -> int:
    environment = {**os.environ, **variables}
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=environment, check=False).returncode


def _why_not(name: str, url: str) -> str:
    """Return why there can be no run on a server, or nothing."""
    config = environ.Env.db_url_config(url)
    try:
        if name == "PostgreSQL":
            import psycopg

            psycopg.connect(
                host=config["HOST"],
                port=config["PORT"],
                user=config["USER"],
                password=config["PASSWORD"] or None,
                dbname="postgres",
                connect_timeout=5,
            ).close()
        elif name == "MariaDB":
            import MySQLdb

            MySQLdb.connect(
                host=config["HOST"],
                port=int(config["PORT"]),
                user=config["USER"],
                passwd=config["PASSWORD"] or "",
                connect_timeout=5,
            ).close()
    except Exception as exc:
        return _first_line(exc)
    return ""


def _why_no_broker() -> str:
    kombu: Any = import_module("kombu")  # It has no types.
    try:
        with kombu.Connection(BROKER, connect_timeout=5) as connection:
            connection.ensure_connection(max_retries=1)
    except Exception as exc:
        return _first_line(exc)
    return ""


def _first_line(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}".strip().partition("\n")[0]


def _report(missing: dict[str, str], failed: list[str], *, partial: bool) -> int:
    print()
    _run(["coverage", "combine", "--quiet"])
    least = 0 if partial or missing else LEAST_COVERAGE
    poor = _run(["coverage", "report", "--skip-covered", f"--fail-under={least}"])
    for name, reason in missing.items():
        print(f"NOT RUN HERE: the tests on {name} ({reason})")
    for program, tests in PROGRAMS.items():
        if not shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"):
            print(f"NOT RUN HERE: the tests {tests} (there is no {program})")
    for name in failed:
        print(f"FAILED: the tests on {name}")
    in_ci = bool(os.environ.get("CI"))
    if in_ci and missing:
        print("In CI what is missing is a failure.")
    return 1 if failed or poor or (in_ci and missing) else 0


if __name__ == "__main__":
    sys.exit(main())
