"""The environments: ours is the project's; each peer gets its own, so that no dependency is shared.

hyperscale-crypto 0.3.0 is not among them: it needs Python 3.14.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from django import get_version

HERE = Path(__file__).resolve().parent
ENVS = HERE / ".envs"

OURS = ("plain", "raw_aes_gcm", "envelope_floor", "asherah_json", "asherah_compact")
NATIVE = ("asherah_json_native", "asherah_compact_native")
BEFORE = tuple(f"{name}_before" for name in ("asherah_json", "asherah_compact", *NATIVE))
"""Ours as it was at a revision of this repository: the last that opened values when a row was loaded."""

REVISION = "b5fd3be"

PEERS = {
    "rust_sdk": "asherah==0.5.56",
    "django_field_encryption": "django-field-encryption==0.2.3",
    "django_tink_fields": "django-tink-fields==0.5.0",
    "django_fernet_encrypted_fields": "django-fernet-encrypted-fields==0.4.0",
    "django_cryptography_5": "django-cryptography-5==2.0.3",
}
ALL = (*OURS, *NATIVE, *PEERS)
FLOORS = ("raw_aes_gcm", "envelope_floor")

FIELDS = (*(name for name in ALL if name not in FLOORS), "bytes_200", "envelope_field")
"""Those that are whole fields, and two that show the least that a table costs."""

# Every environment has the same Django and the same drivers, so that only the field differs.
_COMMON = ("psycopg[binary]", "mysqlclient")


def python_of(contender: str) -> str:
    """Return the Python that runs a contender; its environment is made now if it isn't there."""
    if contender in NATIVE:
        ours = [f"{name}=={version(name)}" for name in ("boto3", "cryptography", "msgspec")]
        return _environment("native", [*ours, "--editable", str(HERE.parent), str(HERE.parent / "native")])
    if contender in BEFORE:
        before = [f"django-asherah @ git+file://{HERE.parent}@{REVISION}", "boto3"]
        native = [str(HERE.parent / "native")] if contender.removesuffix("_before") in NATIVE else []
        return _environment("before_native" if native else "before", [*before, *native])
    if contender in PEERS:
        return _environment(contender, [PEERS[contender]])
    if find_spec("django_asherah_native"):
        raise RuntimeError("the native code is installed here, but is measured in an environment of its own")
    return sys.executable


def _environment(name: str, packages: list[str]) -> str:
    python, done = ENVS / name / "bin" / "python", ENVS / f"{name}.done"
    if not done.exists():
        uv = [sys.executable, "-m", "uv"]
        _run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(ENVS / name)])
        _run(
            [*uv, "pip", "install", "--quiet", "--python", str(python), f"django=={get_version()}", *_COMMON, *packages]
        )
        done.touch()
    return str(python)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)
