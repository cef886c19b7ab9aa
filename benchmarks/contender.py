"""A running contender, and fair rounds between several."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from benchmarks.environments import HERE, python_of
from benchmarks.timing import lowest


class Contender:
    """One contender with one database, in its own process."""

    def __init__(self, name: str, database: dict[str, Any], directory: Path) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [python_of(name), str(HERE / "worker.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.ask(contender=name, database=database, directory=str(directory))

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises:
            RuntimeError: the contender failed; the message has its traceback.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        reply: dict[str, Any] = json.loads(line) if line else {"error": f"it ended with {self._process.wait()}"}
        if "error" in reply:
            raise RuntimeError(f"{self.name}: {reply['error']}")
        return reply

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def contenders(names: Iterable[str], database: dict[str, Any], directory: Path) -> Iterator[list[Contender]]:
    """Start contenders with one database; on SQLite each gets its own file."""
    with ExitStack() as stack:
        started = []
        for name in names:
            own = dict(database)
            if database["ENGINE"].endswith("sqlite3"):
                own["NAME"] = str(directory / f"{name}.sqlite3")
            started.append(stack.enter_context(Contender(name, own, directory)))
        yield started


def side_by_side(running: list[Contender], rounds: int, **request: Any) -> dict[str, float]:
    """Return each contender's lowest seconds. They take turns, so that all see the same drift of the machine."""
    return lowest({contender.name: contender.ask(**request)["seconds"] for contender in running} for _ in range(rounds))
