"""Holds what became of Django's tests against the record of what is refused."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What became of the tests of one label in one run."""

    ids: frozenset[str] = frozenset()
    failed: dict[str, str] = field(default_factory=dict)
    """The error of each test that failed, as its type and message."""

    swapped: int = 0
    """How many fields of the label were encrypted."""


@dataclass(frozen=True)
class Reason:
    """Why tests fail, what a line ``test: error`` of theirs holds, and which they are."""

    text: str
    error: re.Pattern[str]
    tests: frozenset[str]

    def fits(self, test: str, error: str) -> bool:
        """Tell whether a test's error is one that this reason gives."""
        return self.error.search(f"{test}: {error}") is not None


def read_record(path: Path) -> list[Reason]:
    """Return the reasons in a record, of refusals and of bugs.

    Raises:
        OSError: there is no such file.
        ValueError: it is no TOML, or has a test twice.
        KeyError: a reason lacks something.
    """
    tables: dict[str, list[dict[str, Any]]] = tomllib.loads(path.read_text())
    reasons = [
        Reason(each["reason"], re.compile(each["error"], re.DOTALL), frozenset(each["tests"]))
        for each in [*tables.get("refusals", []), *tables.get("bugs", [])]
    ]
    listed = [test for reason in reasons for test in reason.tests]
    if twice := sorted({test for test in listed if listed.count(test) > 1}):
        raise ValueError(f"{path}: {twice[0]} is listed twice")
    return reasons


def find_problems(outcomes: dict[str, Outcome | None], reasons: list[Reason]) -> Iterator[str]:
    """Yield a line for each thing that is not as recorded. ``outcomes`` has None for a label that did not run."""
    expected = {test: reason for reason in reasons for test in reason.tests}
    failed: dict[str, str] = {}
    for label, outcome in outcomes.items():
        if outcome is None or not outcome.ids:
            yield f"{label}: ran no test"
            continue
        if not outcome.swapped:
            yield f"{label}: has no field that could be swapped"
        failed |= outcome.failed
    for test, error in failed.items():
        if problem := _problem(test, error, expected.get(test)):
            yield problem
    for test, reason in expected.items():
        if _label(test) in outcomes and test not in failed:
            yield f"{test}: passes, or is gone, and is listed as refused: {reason.text}"


def _problem(test: str, error: str, reason: Reason | None) -> str | None:
    first = error.partition("\n")[0]
    if reason is None:
        return f"{test}: fails, and is not listed: {first}"
    return None if reason.fits(test, error) else f"{test}: fails otherwise than listed ({reason.text}): {first}"


def _label(test: str) -> str:
    return test.removeprefix("setUpClass (").partition(".")[0]
