"""Whole tables: ``bulk_create`` and reading every row, with one and with five encrypted columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.contender import Contender, contenders, side_by_side
from benchmarks.databases import every_database, settings_of
from benchmarks.environments import FIELDS
from benchmarks.timing import lowest

STARTS = 3
"""How often each contender is restarted, for the reason given in ``values``."""


def measure(directory: Path, *, quick: bool) -> dict[str, Any]:
    """Return seconds by database, table, direction and contender, and the bytes that one value of 100 takes."""
    with every_database(directory) as urls:
        return {name: _at(settings_of(url), directory, quick=quick) for name, url in urls.items()}


def _at(database: dict[str, Any], directory: Path, *, quick: bool) -> dict[str, Any]:
    starts, rounds = (1, 2) if quick else (STARTS, 3)
    runs = [_at_once(database, directory, rounds, quick=quick) for _ in range(starts)]
    found: dict[str, Any] = {model: _lowest([run[model] for run in runs]) for model in ("one", "five")}
    return {**found, "bytes": runs[0]["bytes"]}


def _at_once(database: dict[str, Any], directory: Path, rounds: int, *, quick: bool) -> dict[str, Any]:
    with contenders(FIELDS, database, directory) as running:
        found: dict[str, Any] = {
            model: _one(running, model, 1000 if quick else rows, rounds)
            for model, rows in {"one": 10_000, "five": 4000}.items()
        }
        found["bytes"] = {contender.name: contender.ask(do="stored_bytes")["bytes"] for contender in running}
    return found


def _lowest(runs: list[dict[str, Any]]) -> dict[str, Any]:
    ways = {way: lowest(run[way] for run in runs) for way in ("create", "iterate")}
    return {"rows": runs[0]["rows"], **ways}


def _one(running: list[Contender], model: str, rows: int, rounds: int) -> dict[str, Any]:
    return {
        "rows": rows,
        "create": side_by_side(running, rounds, do="create", model=model, rows=rows),
        "iterate": side_by_side(running, rounds, do="iterate", model=model, rows=rows),
    }
