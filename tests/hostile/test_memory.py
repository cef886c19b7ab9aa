"""Memory is bounded by a small multiple of what comes in: 64 MiB values, and 64 MiB of something else."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.databases import ROOT
from tests.hostile.memory_process import CASES

pytestmark = [pytest.mark.slow, pytest.mark.memory]

OUTCOMES = {
    "encrypt": "str",
    "encrypt one byte too many": "EncryptionError",
    "decrypt": "bytes",
    "save text": "str",
    "save text one byte too long": "EncryptionError",
    "load text": "str",
    "load a JSON string": "str",
    "load deep JSON": "DecryptionError",
}
MOST = {"encrypt": 4.5, "save text": 5.5}
"""Sealing holds the value, its ciphertext twice, and its base64 twice (4/3 each, as bytes and as str)."""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from Linux's /proc")
def test_memory_is_bounded_by_a_small_multiple_of_the_input() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.memory_process"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    measured = {name: figures.split() for name, figures in (line.split(": ") for line in done.stdout.splitlines())}
    assert {name: said for name, (_, said) in measured.items()} == {
        name: OUTCOMES.get(name, "InvalidRecordError") for name in CASES
    }
    assert {name: grew for name, (grew, _) in measured.items() if float(grew) > MOST.get(name, 3)} == {}
