"""Whole tables re-encrypted and verified, by the commands that an operator runs, including start-up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.databases import every_database
from benchmarks.project import Project

COLUMN = "clinic.Patient.ssn"


def measure(directory: Path, *, quick: bool) -> dict[str, Any]:
    """Return rows per second by database and piece of work."""
    rows, rounds = (2000, 1) if quick else (50_000, 3)
    with every_database(directory) as urls:
        return {name: {"rows": rows, **_at(Project(url), rows, rounds)} for name, url in urls.items()}


def _at(project: Project, rows: int, rounds: int) -> dict[str, float]:
    project.manage("migrate", "--verbosity=0")
    project.task("fill", str(rows))
    reencrypt = ["asherah_reencrypt", COLUMN, "--all"]
    verify = ["asherah_verify", "--data", COLUMN]
    work = {
        "decrypt, encrypt, bulk UPDATE alone": lambda: project.task_seconds("rewrite_alone"),
        "asherah_reencrypt, 1 process": lambda: project.manage(*reencrypt),
        "asherah_reencrypt, 2 processes": lambda: project.manage_all(
            [[*reencrypt, "--shard", "1/2"], [*reencrypt, "--shard", "2/2"]]
        ),
        "asherah_verify, 1 process": lambda: project.manage(*verify),
        "asherah_verify, 2 processes": lambda: project.manage(*verify, "--parallel", "2"),
    }
    lowest: dict[str, float] = {}
    for _ in range(rounds):
        for name, run in work.items():
            seconds = run()
            lowest[name] = min(seconds, lowest.get(name, seconds))
    return {name: rows / seconds for name, seconds in lowest.items()}
