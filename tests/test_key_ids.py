"""Key ids have one home: what they begin with stands in no other module."""

from __future__ import annotations

import re
from pathlib import Path

import django_asherah

PACKAGE = Path(django_asherah.__file__).parent
PREFIX = re.compile(r"_[A-Z]K(_|\b)")


def test_the_prefixes_stand_in_the_module_of_key_ids_alone() -> None:
    files = [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".html", ".css")]
    found = {str(path.relative_to(PACKAGE)) for path in files if PREFIX.search(path.read_text(encoding="utf-8"))}
    assert len(files) > 50
    assert found == {"envelope/partition.py"}
