"""The most memory that ``asherah_verify --data`` holds, with few rows and with a million."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.project import Project


def measure(directory: Path, *, quick: bool) -> dict[str, Any]:
    """Return KiB by number of rows."""
    project = Project(f"sqlite:///{directory / 'memory.sqlite3'}")
    project.manage("migrate", "--verbosity=0")
    found = {}
    for rows in (1000, 10_000 if quick else 1_000_000):
        project.task("fill", str(rows))
        found[str(rows)] = project.peak_memory("asherah_verify", "--data", "clinic.Patient.ssn")
    return found
