"""Start servers with exactly the configuration that docs/how-to/deploy.md shows."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import connections

from tests.databases import execute
from tests.faults.test_servers import ask_many, wait_for
from tests.moto_servers import free_port

DEPLOYING = Path(__file__).resolve().parents[2] / "docs" / "deploying"


def command_of(file: str) -> list[str]:
    """Return the command that a configuration shows: a script is one, and the others' first line holds it."""
    if file.endswith(".sh"):
        return ["sh", file]
    return shlex.split((DEPLOYING / file).read_text().partition("\n")[0].removeprefix("# "))


@contextmanager
def running(command: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server beside its configuration for the length of the block; print what it said."""
    with tempfile.TemporaryFile() as said:
        server = subprocess.Popen(
            command, cwd=DEPLOYING, env=env, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield server
        finally:
            _end(server)
            said.seek(0)
            print(said.read().decode(errors="replace"))


def serve(file: str, env: dict[str, str], page: str = "note") -> set[int]:
    """Start the server, ask it from eight clients at once; return the processes that answered."""
    port = free_port()
    with running(command_of(file), env | {"PORT": str(port)}) as server:
        wait_for(port, server)
        return {answer["pid"] for answer in ask_many(port, f"{page}?")}


def finding_the_project(env: dict[str, str]) -> dict[str, str]:
    """Return an environment in which ``clinic`` and the servers' own commands are found."""
    here = Path(__file__).resolve().parent
    paths = [str(here.parents[1]), str(here), *filter(None, [env.get("PYTHONPATH")])]
    return env | {
        "PYTHONPATH": os.pathsep.join(paths),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")]),
        "DJANGO_SETTINGS_MODULE": "tests.deploy.settings",
    }


def database_variables() -> dict[str, str]:
    """Return what the fragments of settings read of the database under test."""
    at = connections["default"].settings_dict
    named = {"HOST": at["HOST"], "PORT": str(at["PORT"]), "NAME": at["NAME"], "USER": at["USER"]}
    return {**{f"DATABASE_{part}": value for part, value in named.items()}, "PGPASSWORD": at["PASSWORD"]}


@contextmanager
def empty_database(suffix: str) -> Iterator[str]:
    """Make a database beside the one under test; yield its name."""
    name = f"{connections['default'].settings_dict['NAME']}_{suffix}"
    execute("default", f"DROP DATABASE IF EXISTS {name}")
    execute("default", f"CREATE DATABASE {name}")
    yield name
    execute("default", f"DROP DATABASE {name} (FORCE)")


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(60)  # A worker that gunicorn has just forked may miss its signal, and is killed after 30 seconds.
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)  # Of the session that it was started with.
        server.wait()
        raise
