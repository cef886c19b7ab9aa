"""Ten thousand values over one partition, and over a thousand."""

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


def _lowest(project: Project, count: str, values: str, rounds: int) -> dict[str, float]:
    runs = []
    for _ in range(rounds):
        project.manage("migrate", "--verbosity=0")
        project.manage("flush", "--no-input", "--verbosity=0")
        runs.append(project.task("partitions", count, values))
    return lowest(runs)
