"""Ten thousand values over one partition, and over a thousand; the keys of ten thousand new partitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.databases import every_database
from benchmarks.project import Project
from benchmarks.timing import lowest


def measure(directory: Path, *, quick: bool) -> dict[str, Any]:
    """Return seconds and metastore queries, by database and number of partitions."""
    values, rounds = ("1000", 1) if quick else ("10000", 3)
    with every_database(directory) as urls:
        return {
            name: {count: _lowest(Project(url), count, values, rounds) for count in ("1", "1000")}
            for name, url in urls.items()
        }


def measure_new(directory: Path, *, quick: bool) -> dict[str, dict[str, float]]:
    """Return the seconds that the keys of new partitions take by database, made one by one and together."""
    with every_database(directory) as urls:
        return {name: _make_new(Project(url), "200" if quick else "10000") for name, url in urls.items()}


def _lowest(project: Project, count: str, values: str, rounds: int) -> dict[str, float]:
    runs = []
    for _ in range(rounds):
        project.manage("migrate", "--verbosity=0")
        project.manage("flush", "--no-input", "--verbosity=0")
        runs.append(project.task("partitions", count, values))
    return lowest(runs)


def _make_new(project: Project, count: str) -> dict[str, float]:
    project.manage("migrate", "--verbosity=0")
    project.manage("flush", "--no-input", "--verbosity=0")
    seconds: dict[str, float] = project.task("new_partitions", count)
    return seconds
