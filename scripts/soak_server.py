"""A MariaDB server of the load test's own, which can be stopped as by a power failure of its process."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import MySQLdb

from tests.moto_servers import free_port

PROGRAM = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

PATIENCE = 60.0
"""Seconds for a start with recovery, on a machine that everybody competes for."""


class DatabaseServer:
    """A server without users over an empty directory. What it has committed is durable."""

    def __init__(self, directory: Path) -> None:
        if PROGRAM is None:
            raise SystemExit("there is no mariadbd on this machine (Debian's package is mariadb-server-core)")
        self._directory = directory
        self._program = PROGRAM
        self._port = free_port()
        self.url = f"mysql://root@127.0.0.1:{self._port}/soak"
        (directory / "data").mkdir(parents=True)
        self._start()
        connection = MySQLdb.connect(host="127.0.0.1", port=self._port, user="root")
        connection.query("CREATE DATABASE soak CHARACTER SET utf8mb4")
        connection.close()
        self.stop()  # MariaDB does not recover a directory that it was still making when it was killed.
        self._start()

    def restart(self) -> None:
        """Kill it, and start it again: every connection breaks, and it recovers from its log."""
        self._process.kill()
        self._process.wait()
        self._start()

    def stop(self) -> None:
        """End it for good."""
        self._process.terminate()
        self._process.wait(timeout=PATIENCE)

    def _start(self) -> None:
        directory = self._directory
        where = (f"--datadir={directory / 'data'}", f"--socket={directory / 'sock'}", f"--port={self._port}")
        options = ("--bind-address=127.0.0.1", "--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=1")
        with (directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "--no-defaults", "--user=root", "--skip-grant-tables", *where, *options],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self._process.poll() is None:
            with suppress(MySQLdb.OperationalError):
                MySQLdb.connect(host="127.0.0.1", port=self._port, user="root").close()
                return
            time.sleep(0.05)
        raise RuntimeError(f"the database server did not start: {directory / 'log'} says why")
