"""Every row of the threat model has a test that exists, or a reason."""

from __future__ import annotations

import re

import pytest

from tests.databases import ROOT

PAGE = (ROOT / "docs" / "explanation" / "threat-model.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| attempt ")
]
ATTACKS = "tests/threats/test_attacks.py"


def test_the_page_has_rows() -> None:
    assert len(ROWS) > 30
    assert {len(row) for row in ROWS} == {3}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_names_a_test_that_exists_or_a_reason(row: list[str]) -> None:
    proof = row[2]
    if not proof.startswith("`"):
        assert proof.endswith("."), "a reason is a sentence"
        return
    path, _, name = proof.strip("`").rpartition("::")
    if name.startswith("tests/"):
        path, name = name, ""
    file = ROOT / (path or ATTACKS)
    assert file.exists()
    assert not name or re.search(rf"^ *def {name}\(", file.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_attack_stands_on_the_page() -> None:
    attacks = re.findall(r"^def (test_\w+)", (ROOT / ATTACKS).read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name in attacks if name not in PAGE] == []
