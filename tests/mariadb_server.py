"""A MariaDB server of a test's own, in a time zone with a summer time, with limits of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.databases import wait_until

PROGRAM = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@contextmanager
def mariadb(directory: Path, zone: str, *options: str) -> Iterator[dict[str, Any]]:
    """Start a server without users, whose system's time zone is ``zone``; yield Django's settings for it."""
    import MySQLdb  # Tests on other databases run without the driver, too.

    if PROGRAM is None:
        reason = "there is no mariadbd on this machine (Debian's package is called mariadb-server-core)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    data = directory / "data"
    data.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    small = ("--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0")
    where = (f"--datadir={data}", f"--socket={directory / 'sock'}", f"--port={port}", "--bind-address=127.0.0.1")
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [PROGRAM, "--no-defaults", "--user=root", "--skip-grant-tables", *where, *small, *options],
            env={**os.environ, "TZ": zone},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: _answers(port, process), every=0.05)
        server = MySQLdb.connect(host="127.0.0.1", port=port, user="root")
        server.query("CREATE DATABASE keys_and_data CHARACTER SET utf8mb4")
        server.close()
        yield {"HOST": "127.0.0.1", "PORT": str(port), "USER": "root", "PASSWORD": "", "NAME": "keys_and_data"}
    finally:
        process.terminate()
        process.wait(timeout=30)


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    import MySQLdb

    assert process.poll() is None, "the server has ended: its log says why"
    try:
        MySQLdb.connect(host="127.0.0.1", port=port, user="root").close()
    except MySQLdb.OperationalError:
        return False
    return True
