"""Does things with values of 64 MiB; prints how many times its size the process grew, and what came out."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import django
from django.conf import settings

from django_asherah import engine
from django_asherah.exceptions import AsherahError
from django_asherah.fields import EncryptedJSONField, EncryptedTextField
from fuzz import world

MOST = 64 * 1024 * 1024


def encrypted(payload: bytes) -> str:
    return engine.get_session().encrypt(payload)


def decrypt(record: str) -> bytes:
    return engine.get_session().decrypt(record)


def save(text: str) -> Any:
    return EncryptedTextField().get_db_prep_save(text, SimpleNamespace(alias="default"))  # type: ignore[arg-type]


def load(record: str) -> Any:
    return EncryptedTextField().from_db_value(record, None, None)  # type: ignore[arg-type]


def load_json(record: str) -> Any:
    return EncryptedJSONField().from_db_value(record, None, None)  # type: ignore[arg-type]


CASES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "encrypt": (lambda: b"x" * MOST, encrypted),
    "encrypt one byte too many": (lambda: b"x" * (MOST + 1), encrypted),
    "decrypt": (lambda: encrypted(b"x" * MOST), decrypt),
    "save text": (lambda: "x" * MOST, save),
    "save text one byte too long": (lambda: "x" * (MOST + 1), save),
    "load text": (lambda: encrypted("é".encode() * (MOST // 2)), load),
    "load a JSON string": (lambda: encrypted(b'"' + b"x" * (MOST - 2) + b'"'), load_json),
    "load deep JSON": (lambda: encrypted(b"[" * MOST), load_json),
    "deep lists": (lambda: "[" * MOST, decrypt),
    "many lists": (lambda: '{"x":[' + "[]," * (MOST // 3) + "1]}", decrypt),
    "many members": (lambda: "{" + '"a":1,' * (MOST // 6) + '"b":1}', decrypt),
    "many times Data": (lambda: "{" + f'"Data":"{"A" * (MOST // 64)}",' * 63 + '"Key":1}', decrypt),
    "digits": (lambda: '{"Key":{"Created":' + "9" * MOST + "}}", decrypt),
    "a long key id": (lambda: '{"Key":{"ParentKeyMeta":{"KeyId":"' + "9" * MOST + '"}}}', decrypt),
    "escapes": (lambda: '{"Key":{"ParentKeyMeta":{"KeyId":"' + "\\u00e9" * (MOST // 6) + '"}}}', decrypt),
    "a long sealed key": (lambda: '{"Key":{"Key":"' + "A" * MOST + '"}}', decrypt),
    "NUL": (lambda: "\0" * MOST, decrypt),
    "lone surrogates": (lambda: "\ud800" * (MOST // 4), decrypt),
}


def memory(name: str) -> int:
    """Return a figure of /proc/self/status, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


def measure(name: str) -> str:
    """Do one thing; return what it came to."""
    make, work = CASES[name]
    value = make()
    size = sys.getsizeof(value)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # The peak begins anew.
    before = memory("VmRSS")
    try:
        said = type(work(value)).__name__
    except AsherahError as exc:
        said = type(exc).__name__
    return f"{name}: {(memory('VmHWM') - before) / size:.2f} {said}"


if __name__ == "__main__":
    settings.configure(ASHERAH=world.ASHERAH, INSTALLED_APPS=["django_asherah"])
    django.setup()
    for name in CASES:
        sys.stdout.write(f"{measure(name)}\n")
