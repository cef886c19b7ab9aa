"""From nothing to the first value: whole processes, with a static KMS and with two KMS regions on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.project import Project
from benchmarks.timing import lowest
from tests.moto_servers import moto_region

STEPS = {
    "Python alone": "nothing",
    "Django with the app": "start_app",
    "first plain value": "first_plain_value",
    "first encrypted value": "first_value",
}


def measure(directory: Path, *, quick: bool) -> dict[str, Any]:
    """Return the lowest seconds by KMS and step."""
    rounds = 2 if quick else 10
    with moto_region("us-west-2") as west, moto_region("us-east-1") as east:
        aws = {
            "ASHERAH_REGIONS": f"us-west-2={west.arn},us-east-1={east.arn}",
            "ASHERAH_ENDPOINT_URLS": f"us-west-2={west.url},us-east-1={east.url}",
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
        }
        static = Project(f"sqlite:///{directory / 'static.sqlite3'}")
        regional = Project(f"sqlite:///{directory / 'aws.sqlite3'}", **aws)
        return {"static KMS": _lowest(static, rounds), "AWS KMS, two regions": _lowest(regional, rounds)}


def _lowest(project: Project, rounds: int) -> dict[str, float]:
    project.manage("migrate", "--verbosity=0")
    project.task("fill", "1000")
    return lowest({label: project.task_seconds(task) for label, task in STEPS.items()} for _ in range(rounds))
