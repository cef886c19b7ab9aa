"""The memory of a process that uses the native code: no data row key is left in it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

pytest.importorskip("django_asherah_native", reason="no native code: make native")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/PID/mem")]

INTERMEDIATE_KEY = os.urandom(32)
LENGTHS = [100, 100_000]

CHILD = """
import sys
from django_asherah_native import RowCipher

rows = RowCipher(bytes.fromhex(sys.stdin.readline()))
while line := sys.stdin.readline():
    work, *parts = line.split()
    if work == "seal":
        row = rows.seal_row(bytes(int(parts[0])))
        print(*(part.hex() for part in row), flush=True)
    else:
        row = [bytes.fromhex(part) for part in parts]
        try:
            opened = rows.open_row(*row)
            print("opened", len(opened), flush=True)
        except ValueError:
            print("refused", flush=True)
"""


class Child:
    """A process that seals and opens."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.say(INTERMEDIATE_KEY.hex())

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def ask(self, *words: str) -> str:
        self.say(" ".join(words))
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def holds(self, secret: bytes) -> bool:
        """Tell whether the secret is anywhere in what the process can write to. It stands still meanwhile."""
        pid = self._process.pid
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        try:
            return self._find(Path("/proc", str(pid)), secret)
        finally:
            os.kill(pid, signal.SIGCONT)

    def _find(self, process: Path, secret: bytes) -> bool:
        with (process / "mem").open("rb", buffering=0) as memory:
            for line in (process / "maps").read_text().splitlines():
                span = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
                if span is None:
                    continue
                start, end = (int(each, 16) for each in span.groups())
                memory.seek(start)
                if secret in memory.read(end - start):
                    return True
        return False


@pytest.fixture
def child() -> Iterator[Child]:
    command = [sys.executable, "-c", CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Child(process)
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize("length", LENGTHS)
def test_no_data_row_key_is_left_by_sealing(child: Child, length: int) -> None:
    sealed_key, sealed = map(bytes.fromhex, child.ask("seal", str(length)).split())
    row_key = AESGCM(INTERMEDIATE_KEY).decrypt(sealed_key[-12:], sealed_key[:-12], None)
    assert AESGCM(row_key).decrypt(sealed[-12:], sealed[:-12], None) == bytes(length)
    assert child.holds(sealed[:60]), "the search finds what is there"
    assert not child.holds(row_key[:16])
    assert not child.holds(row_key[16:])


@pytest.mark.parametrize("length", LENGTHS)
def test_no_data_row_key_is_left_by_opening(child: Child, length: int) -> None:
    row_key, payload = os.urandom(32), os.urandom(length)
    sealed_key = AESGCM(INTERMEDIATE_KEY).encrypt(bytes(12), row_key, None) + bytes(12)
    sealed = AESGCM(row_key).encrypt(bytes(12), payload, None) + bytes(12)
    assert child.ask("open", sealed_key.hex(), sealed.hex()) == f"opened {length}"
    assert child.holds(payload[:60]), "the search finds what is there"
    assert not child.holds(row_key[:16])
    assert not child.holds(row_key[16:])


@pytest.mark.parametrize("length", LENGTHS)
def test_what_is_not_authentic_is_not_left_either(child: Child, length: int) -> None:
    row_key, payload = os.urandom(32), os.urandom(length)
    sealed_key = AESGCM(INTERMEDIATE_KEY).encrypt(bytes(12), row_key, None) + bytes(12)
    sealed = bytearray(AESGCM(row_key).encrypt(bytes(12), payload, None) + bytes(12))
    sealed[-13] ^= 1  # The tag: all of the payload comes out, and is found out to be another's at the end.
    assert child.ask("open", sealed_key.hex(), sealed.hex()) == "refused"
    assert child.holds(bytes(sealed[:60])), "the search finds what is there"
    assert not child.holds(payload[:60])
