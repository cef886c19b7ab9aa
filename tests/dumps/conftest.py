"""Fixtures of the tests of dumps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

Dump = Callable[..., Path]
Write = Callable[..., Path]


@pytest.fixture
def dump(tmp_path: Path) -> Dump:
    """Run ``dumpdata`` into a file: of the whole project if nothing is named."""

    def dump(*labels: str, format: str = "json", **options: Any) -> Path:
        path = tmp_path / f"dump.{format}"
        call_command("dumpdata", *labels, format=format, output=str(path), verbosity=0, **options)
        return path

    return dump


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows into a fixture, in JSON."""

    def write(*rows: dict[str, Any]) -> Path:
        path = tmp_path / "written.json"
        path.write_text(json.dumps(rows))
        return path

    return write
