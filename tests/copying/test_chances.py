"""What the page says that a proof is worth, worked out."""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache
from math import ceil, comb

from django_asherah import fields
from django_asherah.copying.plausibility import Plausibility
from django_asherah.copying.proof import SAMPLE
from tests.test_docs import DOCS

TEXT = (
    (DOCS / "how-to" / "migrate-from-another-library.md")
    .read_text(encoding="utf-8")
    .split("## What the proof is worth")[1]
)
LEAST = 0.9


@cache
def characters() -> dict[int, int]:
    """Return how many characters may be in a text, by the length of their UTF-8."""
    found = dict.fromkeys(range(1, 5), 0)
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        if char in "\t\n\r" or not (unicodedata.category(char) in {"Cc", "Cn", "Co", "Cs"} or char == "\ufffd"):
            found[len(char.encode())] += 1
    return found


@cache
def random_bytes(size: int) -> float:
    """Return the chance that random bytes are such a text."""
    if not size:
        return 1.0
    return sum(
        characters()[length] / 256**length * random_bytes(size - length) for length in range(1, 5) if length <= size
    )


def padded(blocks: int) -> float:
    """Return the chance that blocks of 16 random bytes end in PKCS #7's padding, and that such a text is before it."""
    return sum(256.0**-pad * random_bytes(16 * blocks - pad) for pad in range(1, 17))


def at_least(number: int, of: int, chance: float) -> float:
    return sum(comb(of, each) * chance**each * (1 - chance) ** (of - each) for each in range(number, of + 1))


def stated(cell: str) -> float:
    if power := re.fullmatch(r"10<sup>(-\d+)</sup>", cell):
        return 10.0 ** int(power[1])
    return float(cell[:-1]) / 100 if cell.endswith("%") else float(cell)


def test_the_arithmetic_is_of_what_is_taken_for_text() -> None:
    plausible = Plausibility(fields.EncryptedTextField())
    taken = [char for char in map(chr, range(0x3000)) if not plausible.fault(char, b"")]
    assert len([char for char in taken if len(char.encode()) == 1]) == characters()[1] == 98
    assert len([char for char in taken if len(char.encode()) == 2]) == characters()[2]


def test_the_chances_of_one_value_are_as_said() -> None:
    one, two, four, eight = (random_bytes(size) * 100 for size in (1, 2, 4, 8))
    assert f"{one:.0f}% (1 byte), {two:.0f}% (2), {four:.1f}% (4), {eight:.2f}% (8)" in TEXT
    assert f"and {random_bytes(16) * 1e6:.0f} in a million (16)" in " ".join(TEXT.split())
    assert f"{padded(1) * 1e8:.0f} in 100 million for one block, and {padded(2) * 1e13:.0f} in 10<sup>13</sup>" in TEXT


def test_the_chances_of_a_sample_are_no_greater_than_said_and_not_far_below() -> None:
    lines = re.findall(r"^\|(.*\d.*)\|$", TEXT, re.MULTILINE)[1:]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    assert [int(row[0]) for row in rows] == [SAMPLE, 30, 10, 3]
    for size, least, *cells in rows:
        assert int(least) == ceil(LEAST * int(size) - 1e-9)
        for cell, chance in zip(cells, (random_bytes(1), random_bytes(4), padded(1)), strict=True):
            worked_out = at_least(int(least), int(size), chance)
            assert worked_out < 1e-100 if cell == "0" else stated(cell) / 30 < worked_out <= stated(cell)


def test_the_right_key_is_refused_as_seldom_as_said() -> None:
    refused = {share: 1 - at_least(int(LEAST * SAMPLE), SAMPLE, 1 - share) for share in (0.05, 0.07)}
    assert 0.5e-4 < refused[0.05] < 1.5e-4
    assert "1 in 10,000 if 5% of the rows are damaged" in TEXT
    assert f"{refused[0.07]:.0%} if 7% are" in TEXT
