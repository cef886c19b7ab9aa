"""Rows whose encrypted columns are looked at and rows whose are not, against the same bytes in a plain column.

Against this package as it was before, too, which opened every value when its row was loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.contender import Contender, contenders, side_by_side
from benchmarks.databases import every_database, settings_of
from benchmarks.environments import BEFORE, NATIVE
from benchmarks.timing import lowest

NAMES = ("same_text", "same_bytes", "asherah_json", "asherah_compact", *NATIVE, *BEFORE)
ROWS = {"one": 10_000, "five": 4000}
WAYS = ("look", "iterate", "touch")
TOUCHED = 400

STARTS = 2
"""How often each contender is restarted, for the reason given in ``values``."""


def measure(directory: Path, *, quick: bool) -> dict[str, Any]:
    """Return seconds by database, table, what is done with the rows, and contender."""
    with every_database(directory) as urls:
        return {name: _at(settings_of(url), directory, quick=quick) for name, url in urls.items()}


def _at(database: dict[str, Any], directory: Path, *, quick: bool) -> dict[str, Any]:
    starts, rounds = (1, 2) if quick else (STARTS, 4)
    runs = [_at_once(database, directory, rounds, quick=quick) for _ in range(starts)]
    return {model: {way: lowest(run[model][way] for run in runs) for way in WAYS} for model in ROWS}


def _at_once(database: dict[str, Any], directory: Path, rounds: int, *, quick: bool) -> dict[str, Any]:
    with contenders(NAMES, database, directory) as running:
        return {model: _one(running, model, 500 if quick else rows, rounds) for model, rows in ROWS.items()}


def _one(running: list[Contender], model: str, rows: int, rounds: int) -> dict[str, dict[str, float]]:
    side_by_side(running, 1, do="create", model=model, rows=rows)
    found = {way: side_by_side(running, rounds, do=way, model=model, rows=rows) for way in ("look", "iterate")}
    side_by_side(running, 1, do="create", model=model, rows=TOUCHED)
    return {**found, "touch": side_by_side(running, rounds, do="touch", model=model, rows=TOUCHED)}
