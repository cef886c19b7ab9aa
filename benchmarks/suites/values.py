"""One value at a time: from the attribute to what goes to the database, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.contender import contenders, side_by_side
from benchmarks.databases import settings_of
from benchmarks.environments import ALL
from benchmarks.timing import lowest

COUNTS = {100: 4000, 1024: 3000, 65_536: 150, 1_048_576: 10}
"""Values per round, by size in bytes: each round takes a few hundredths of a second."""


STARTS = 5
"""How often each contender is restarted: its memory layout makes a process up to 5 % slower."""


def measure(directory: Path, *, quick: bool) -> dict[str, Any]:
    """Return microseconds per value, by size, direction and contender."""
    starts, rounds = (1, 3) if quick else (STARTS, 5)
    runs = [_measure_once(directory, rounds) for _ in range(starts)]
    return {
        str(size): {direction: lowest(run[size, direction] for run in runs) for direction in ("encrypt", "decrypt")}
        for size in COUNTS
    }


def _measure_once(directory: Path, rounds: int) -> dict[tuple[int, str], dict[str, float]]:
    with contenders(ALL, settings_of(f"sqlite:///{directory}/values.sqlite3"), directory) as running:
        return {
            (size, direction): {
                name: seconds / count * 1e6
                for name, seconds in side_by_side(running, rounds, do=direction, size=size, count=count).items()
            }
            for size, count in COUNTS.items()
            for direction in ("encrypt", "decrypt")
        }
