"""The databases that the benchmarks create for themselves and drop at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import environ

NAME = "asherah_bench"
SERVERS = {
    "PostgreSQL": os.environ.get("TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432/postgres"),
    "MariaDB": os.environ.get("TEST_MARIADB_URL", "mysql://root@127.0.0.1:3306/test"),
}


def settings_of(url: str) -> dict[str, Any]:
    """Return the Django settings of a database's URL."""
    return dict(environ.Env.db_url_config(url))


@contextmanager
def every_database(directory: Path) -> Iterator[dict[str, str]]:
    """Give the URL of a fresh database of each kind; a server that does not answer is left out, and named."""
    found = {"SQLite": f"sqlite:///{directory / 'bench.sqlite3'}"}
    for name, url in SERVERS.items():
        try:
            _send(name, f"DROP DATABASE IF EXISTS {NAME}", f"CREATE DATABASE {NAME}")
        except Exception as exc:
            print(f"NOT MEASURED: {name} ({type(exc).__name__}: {exc})")
        else:
            found[name] = f"{url.rpartition('/')[0]}/{NAME}"
    try:
        yield found
    finally:
        for name in SERVERS.keys() & found.keys():
            _send(name, f"DROP DATABASE IF EXISTS {NAME}")


def _send(name: str, *statements: str) -> None:
    send = _postgresql if name == "PostgreSQL" else _mariadb
    send(settings_of(SERVERS[name]), statements)


def _postgresql(config: dict[str, Any], statements: tuple[str, ...]) -> None:
    import psycopg

    place = {"host": config["HOST"], "port": config["PORT"], "user": config["USER"], "dbname": "postgres"}
    with psycopg.connect(**place, password=config["PASSWORD"] or None, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement + (" WITH (FORCE)" if statement.startswith("DROP") else ""))


def _mariadb(config: dict[str, Any], statements: tuple[str, ...]) -> None:
    import MySQLdb

    place = {"host": config["HOST"], "port": int(config["PORT"]), "user": config["USER"]}
    connection = MySQLdb.connect(**place, passwd=config["PASSWORD"] or "")
    for statement in statements:
        connection.query(statement)
    connection.close()
