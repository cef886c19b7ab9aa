"""Django's test runner, which also writes what became of each test as JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from unittest import TextTestResult

from django.test.runner import DiscoverRunner

from scripts.suites_swap import swapped

OUTCOME_FILE = "DJANGO_SUITES_OUTCOME"
"""The environment variable that names the file."""


class RecordingResult(TextTestResult):
    """Keeps the error of each test that failed; of its subtests, the first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ids: set[str] = set()
        self.failed: dict[str, str] = {}

    def getDescription(self, test: Any) -> str:  # noqa: N802
        """Return a test's name alone: what a subtest was given may be a query that is refused, even in its repr."""
        return str(getattr(test, "test_case", test).id())

    def startTest(self, test: Any) -> None:  # noqa: D102, N802 - unittest's
        super().startTest(test)
        self.ids.add(test.id())

    def addError(self, test: Any, err: Any) -> None:  # noqa: D102, N802
        super().addError(test, err)
        self._keep(test, err)

    def addFailure(self, test: Any, err: Any) -> None:  # noqa: D102, N802
        super().addFailure(test, err)
        self._keep(test, err)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: D102, N802
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._keep(test, err)

    def addUnexpectedSuccess(self, test: Any) -> None:  # noqa: D102, N802
        super().addUnexpectedSuccess(test)
        self.failed.setdefault(test.id(), "UnexpectedSuccess: it was expected to fail")

    def _keep(self, test: Any, err: Any) -> None:
        self.failed.setdefault(test.id(), f"{err[0].__name__}: {err[1]}"[:1000])


class RecordingRunner(DiscoverRunner):
    """Runs the tests in this process."""

    def get_resultclass(self) -> type[RecordingResult]:
        """Return the result that keeps errors."""
        return RecordingResult

    def suite_result(self, suite: Any, result: Any, **kwargs: Any) -> int:
        """Write what became of the tests, and how many fields were swapped."""
        outcome = {"ids": sorted(result.ids), "failed": result.failed, "swapped": dict(swapped)}
        Path(os.environ[OUTCOME_FILE]).write_text(json.dumps(outcome))
        return len(result.failed)
