"""Runs ``suite`` in a process whose settings install the packages."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.databases import ROOT

pytestmark = pytest.mark.slow


def test_the_packages_work_with_encrypted_fields() -> None:
    if "reversion" in sys.modules:
        return  # This is that process.
    words = ["-q", "--ds=tests.ecosystem.settings", "tests/ecosystem/suite", "-p", "no:xdist"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
