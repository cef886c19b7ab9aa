"""PgBouncer before the database under test, as the page "Deploying" configures it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from django.db import connections

from tests.databases import ROOT, wait_until
from tests.moto_servers import free_port

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
SHOWN = ROOT / "docs" / "deploying" / "pgbouncer.ini"


@contextmanager
def pgbouncer(directory: Path, pool_size: int) -> Iterator[str]:
    """Start it with so many connections of the server, for a database ``clinic``; yield its port."""
    if PROGRAM is None:
        reason = "there is no pgbouncer on this machine (Debian's package has that name)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    at, port = connections["default"].settings_dict, free_port()
    database = f"host={at['HOST']} port={at['PORT']} dbname={at['NAME']} user={at['USER']}"
    database += f" password='{at['PASSWORD']}'" if at["PASSWORD"] else ""
    config = directory / "pgbouncer.ini"
    config.write_text(
        f"{SHOWN.read_text()}\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =\nquery_wait_timeout = 20\n"
        f"default_pool_size = {pool_size}\n[databases]\nclinic = {database}\n"
    )
    unprivileged = ["-u", "postgres"] if os.geteuid() == 0 else []  # As root it refuses to run.
    with (directory / "pgbouncer.log").open("wb") as log, config.open() as ini:
        # From its standard input: nobody but root may read a test's directory.
        process = subprocess.Popen(
            [PROGRAM, *unprivileged, "/dev/stdin"], stdin=ini, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_until(lambda: _answers(port, process), every=0.05)
        yield str(port)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the pooler has ended: its log says why"
    try:
        psycopg.connect(host="127.0.0.1", port=port, user="anybody", dbname="clinic", connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True
