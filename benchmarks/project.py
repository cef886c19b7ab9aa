"""The clinic of ``testproject`` as what is measured: separate processes, as an operator would start them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.environments import HERE

ROOT = HERE.parent
MANAGE = [sys.executable, str(ROOT / "testproject" / "manage.py")]
TASKS = [sys.executable, "-m", "benchmarks.tasks"]


class Project:
    """The clinic with one database."""

    def __init__(self, url: str, **variables: str) -> None:
        self._environment = {
            **os.environ,
            "DATABASE_URL": url,
            "DEBUG": "false",
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "testproject")]),
            **variables,
        }

    def manage(self, *arguments: str) -> float:
        """Run a management command; return its seconds, start-up included."""
        return self._timed([[*MANAGE, *arguments]])

    def manage_all(self, calls: Sequence[Sequence[str]]) -> float:
        """Run several management commands at the same time; return the seconds until the last has ended."""
        return self._timed([[*MANAGE, *arguments] for arguments in calls])

    def task(self, name: str, *arguments: str) -> Any:
        """Run a function of ``tasks.py`` in a process; return what it returns."""
        done = subprocess.run(
            [*TASKS, name, *arguments], cwd=ROOT, env=self._environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return json.loads(done.stdout)

    def task_seconds(self, name: str, *arguments: str) -> float:
        """Run a function of ``tasks.py`` in a process; return its seconds, start-up included."""
        return self._timed([[*TASKS, name, *arguments]])

    def peak_memory(self, *arguments: str) -> int:
        """Run a management command; return the most memory that it held, in KiB."""
        process = subprocess.Popen([*MANAGE, *arguments], env=self._environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"{arguments} ended with {status}")
        return usage.ru_maxrss

    def _timed(self, commands: list[list[str]]) -> float:
        start = time.perf_counter()
        processes = [
            subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=subprocess.DEVNULL)
            for command in commands
        ]
        codes = [process.wait() for process in processes]
        if any(codes):
            raise RuntimeError(f"{commands} ended with {codes}")
        return time.perf_counter() - start
