"""What sharing data row keys, keeping them open, and drawing random bytes ahead would save.

None of it is part of the app; docs/explanation/performance.md says why.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.timing import lowest, timed
from django_asherah.envelope.records import DataRowKey, DataRowRecord, KeyMeta, decode_row, write_json

COUNT = 5000
"""Values per round: a thousand rows of five columns."""

META = KeyMeta("_IK_default_bench_bench", int(time.time()))
PAYLOAD = b"x" * 100

Sealed = tuple[AESGCM, bytes]
"""A data row key's cipher, and the key sealed by the intermediate key."""


def measure(directory: Path, *, quick: bool) -> dict[str, dict[str, float]]:
    """Return microseconds of the bare envelope for a value, by direction and way."""
    intermediate = AESGCM(os.urandom(32))
    ways: dict[str, dict[str, Callable[[], Any]]] = {
        "encrypt": {
            "a data row key for each value": lambda: _encrypt(intermediate, 1, _draw),
            "one for the five columns of a row": lambda: _encrypt(intermediate, 5, _draw),
            "one for a whole bulk_create": lambda: _encrypt(intermediate, COUNT, _draw),
            "one for each value, random bytes drawn ahead": lambda: _encrypt(intermediate, 1, _drawn_ahead().__next__),
        },
        "decrypt": {
            "a data row key for each value": _reader(intermediate, 1, keep=False),
            "one for each value, kept open and read again": _reader(intermediate, 1, keep=True),
            "one for the five columns of a row, kept open": _reader(intermediate, 5, keep=True),
        },
    }
    rounds = 3 if quick else 25
    return {
        direction: lowest({name: timed(work) / COUNT * 1e6 for name, work in of.items()} for _ in range(rounds))
        for direction, of in ways.items()
    }


def _encrypt(intermediate: AESGCM, shared_by: int, draw: Callable[[], bytes]) -> list[str]:
    texts: list[str] = []
    for place in range(COUNT):
        if place % shared_by == 0:
            random = draw()
            key, nonce, key_nonce = random[:32], random[32:44], random[44:]
            cipher, sealed_key = AESGCM(key), intermediate.encrypt(key_nonce, key, None) + key_nonce
        else:
            nonce = os.urandom(12)
        record = DataRowRecord(
            DataRowKey(int(time.time()), sealed_key, META), cipher.encrypt(nonce, PAYLOAD, None) + nonce
        )
        texts.append(write_json(record).decode())
    return texts


def _draw() -> bytes:
    return os.urandom(56)


def _drawn_ahead() -> Iterator[bytes]:
    while True:
        random = os.urandom(56 * 64)
        for place in range(0, len(random), 56):
            yield random[place : place + 56]


def _reader(intermediate: AESGCM, shared_by: int, *, keep: bool) -> Callable[[], list[bytes]]:
    texts = _encrypt(intermediate, shared_by, _draw)
    kept: dict[bytes, AESGCM] = {}

    def read() -> list[bytes]:
        if shared_by > 1:  # A new key for each row.
            kept.clear()
        return [_decrypt(intermediate, text, kept if keep else None) for text in texts]

    return read


def _decrypt(intermediate: AESGCM, text: str, kept: dict[bytes, AESGCM] | None) -> bytes:
    record = decode_row(text)
    sealed = record.key.key
    cipher = kept.get(sealed) if kept is not None else None
    if cipher is None:
        cipher = AESGCM(intermediate.decrypt(sealed[-12:], sealed[:-12], None))
        if kept is not None:
            kept[sealed] = cipher
    return cipher.decrypt(record.data[-12:], record.data[:-12], None)
