"""Other processes, for what only they can show: races, kills, terminals and exit codes."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.databases import ROOT

START = "import sys, django; django.setup()\nfrom django_asherah import lifecycle\n"


def environment(url: str, **variables: str) -> dict[str, str]:
    """Return what a process needs to use the database at ``url``."""
    return {
        **os.environ,
        "DATABASE_URL": url,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
        **variables,
    }


def manage(url: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "django", *words],
        cwd=ROOT,
        env=environment(url, **variables),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )


def on_terminal(url: str, *words: str, typed: str = "", **variables: str) -> tuple[str, int]:
    """Run a command on a terminal of its own; return all that it shows, and its exit code."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    process = subprocess.Popen(
        [sys.executable, "-m", "django", *words],
        cwd=ROOT,
        env=environment(url, **variables),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    os.write(ours, typed.encode())
    shown = b""
    with suppress(OSError):  # How a terminal says that its last user has gone.
        while some := os.read(ours, 65536):
            shown += some
    os.close(ours)
    return shown.decode(), process.wait(timeout=60)


class Peer:
    """A process that runs Python code, and that can be waited for, let go on, or killed."""

    def __init__(self, url: str, code: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", START + code],
            cwd=ROOT,
            env=environment(url),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> str:
        """Wait for a line of its output."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def go_on(self) -> None:
        """Send it a line."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write("go on\n")
            self._process.stdin.flush()

    def end(self) -> str:
        """Wait until it has ended well; return the rest of its output."""
        out, err = self._process.communicate(timeout=120)
        assert self._process.returncode == 0, err
        return out.strip()

    def kill(self) -> None:
        """End it at once, with no chance to clean up."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def peers(url: str, *codes: str) -> Iterator[list[Peer]]:
    """Run a process for each of ``codes``."""
    running = [Peer(url, code) for code in codes]
    try:
        yield running
    finally:
        for peer in running:
            peer.kill()
