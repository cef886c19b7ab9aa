"""A PgBouncer of a test's own before the database under test, in transaction mode."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connections

from tests.databases import wait_until
from tests.moto_servers import free_port

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@contextmanager
def pgbouncer(directory: Path, pool_size: int) -> Iterator[dict[str, Any]]:
    """Start a pooler with so many connections of the server; yield what to change in Django's settings."""
    if PROGRAM is None:
        reason = "there is no pgbouncer on this machine (Debian's package has that name)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    port = free_port()
    configuration = directory / "pgbouncer.ini"
    configuration.write_text(_configuration(port, pool_size))
    root = os.geteuid() == 0  # As which it refuses to run.
    with (directory / "pgbouncer.log").open("wb") as log, configuration.open() as ini:
        process = subprocess.Popen(
            [PROGRAM, *(["-u", "nobody"] if root else []), "/dev/stdin"],
            stdin=ini,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: _answers(port, process), every=0.05)
        yield {"HOST": "127.0.0.1", "PORT": str(port), "DISABLE_SERVER_SIDE_CURSORS": True}
    finally:
        process.terminate()
        process.wait(timeout=30)


def _configuration(port: int, pool_size: int) -> str:
    database: Any = connections["default"].settings_dict
    user, password = database["USER"] or pwd.getpwuid(os.geteuid()).pw_name, database["PASSWORD"]
    server = f"host={database['HOST'] or '127.0.0.1'} port={database['PORT'] or 5432} user={user}"
    if password:
        server += f" password={password}"
    return (
        f"[databases]\n* = {server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = transaction\ndefault_pool_size = {pool_size}\nmax_client_conn = 200\n"
        "query_wait_timeout = 20\nignore_startup_parameters = extra_float_digits,options\n"
    )


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the pooler has ended: its log says why"
    name = connections["default"].settings_dict["NAME"]
    try:
        psycopg.connect(host="127.0.0.1", port=port, user="anybody", dbname=name, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True
