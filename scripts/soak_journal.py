"""What a writer of the load test was told that stands: a file that outlives whoever kills it.

Lines of JSON: ``["try", table, pk, hash]`` before an update, ``["done", table, pk, hash]`` once a write was confirmed,
``["read", how many]``, ``["error", class]`` and ``["wrong", what]``. Values are there by their hashes alone.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

CANARY = "canary-soak-"
"""What every plaintext begins with: nothing that is stored or logged may hold it."""

Place = tuple[str, int]


def hash_of(text: str) -> str:
    """Return what stands for a plaintext."""
    return sha256(text.encode()).hexdigest()


class Journal:
    """One writer's file, and what it says.

    Attributes:
        allowed: the hashes that a row may have now: more than one if nobody knows what came of an update.
        counts: writes confirmed, reads, and errors by class.
        wrong: what should never be.
    """

    def __init__(self, path: Path) -> None:
        self.allowed: dict[Place, set[str]] = {}
        self.counts: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._path = path
        for line in _lines(path):
            self._take(line)

    def open(self) -> None:
        """Be ready to write."""
        self._file = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.write(self._file, b"\n")  # Whoever was killed may have left half a line.

    def write(self, *words: Any) -> None:
        """Add a line; a confirmed write's is on the disk when this returns."""
        self._take(list(words))
        os.write(self._file, json.dumps(words).encode() + b"\n")
        if words[0] == "done":
            os.fsync(self._file)

    def _take(self, words: list[Any]) -> None:
        match words:
            case ["try", table, pk, digest]:
                self.allowed.setdefault((table, pk), set()).add(digest)
            case ["done", table, pk, digest]:
                self.allowed[table, pk] = {digest}
                self.counts["writes confirmed"] += 1
            case ["read", number]:
                self.counts["reads"] += number
            case ["error", name]:
                self.errors[name] += 1
            case ["wrong", what]:
                self.wrong.append(what)


def _lines(path: Path) -> Iterator[list[Any]]:
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue  # Empty, or torn by a kill: whoever wrote it did not go on.
