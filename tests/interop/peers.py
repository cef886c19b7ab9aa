"""The official SDKs as peers: each in a process and an environment of its own."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django_asherah.envelope.records import KeyMeta, decode_row

HERE = Path(__file__).parent
ENVS = HERE / ".envs"
VERSIONS = {"rust": "0.5.56", "go": "0.3.9"}

STATIC_KEY = b"thisIsAStaticMasterKeyForTesting"
"""The SDKs' well-known test key; the Go core knows no other."""


class PeerError(Exception):
    """The SDK failed."""


@contextmanager
def locked() -> Iterator[None]:
    """Let one process at a time make environments."""
    ENVS.mkdir(exist_ok=True)
    with (ENVS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def python_with(*packages: str) -> Path:
    """Return the Python of an environment that has ``packages`` alone; it is made now if it isn't there."""
    name = "-".join([*packages, f"py{sys.version_info[0]}{sys.version_info[1]}"]).replace("==", "-")
    python, done = ENVS / name / "bin" / "python", ENVS / f"{name}.done"
    with locked():
        if not done.exists():
            uv = [sys.executable, "-m", "uv"]
            subprocess.run(
                [*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(ENVS / name)], check=True
            )
            subprocess.run([*uv, "pip", "install", "--quiet", "--python", str(python), *packages], check=True)
            done.touch()
    return python


class Peer:
    """One running SDK."""

    def __init__(self, core: str, config: dict[str, Any], **environment: str) -> None:
        self.core = core
        self._process = subprocess.Popen(
            [str(python_with(f"asherah=={VERSIONS[core]}")), str(HERE / "peer_process.py"), core],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | environment,
        )
        self.begin(config)

    def begin(self, request: dict[str, Any]) -> None:
        """Send a request without waiting for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def end(self) -> str:
        """Wait for the answer."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("\x1e"):  # The cores print lines of their own.
                reply = json.loads(line[1:])
                if "error" in reply:
                    raise PeerError(reply["error"])
                return str(reply["data"])
        raise PeerError(f"the SDK ended with {self._process.wait()}")

    def encrypt(self, partition: str, data: bytes) -> str:
        """Return a data row record's JSON."""
        self.begin({"do": "encrypt", "partition": partition, "data": base64.b64encode(data).decode()})
        return self.end()

    def decrypt(self, partition: str, record: str) -> bytes:
        """Return what a data row record seals."""
        self.begin({"do": "decrypt", "partition": partition, "data": record})
        return base64.b64decode(self.end())

    def close(self) -> None:
        """End the SDK."""
        self._process.kill()
        self._process.communicate()


def key_of(text: str) -> KeyMeta:
    """Return the intermediate key that a data row record names."""
    return decode_row(text).key.parent_key_meta


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that another process's clock brings about."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it never came about"


def static_config(core: str, url: str) -> dict[str, Any]:
    """Return a core's configuration for the database at a Django URL, with the static KMS."""
    return (
        base_config(core, url)
        | {"KMS": "static"}
        | ({"StaticMasterKeyHex": STATIC_KEY.hex()} if core == "rust" else {})
    )


def base_config(core: str, url: str) -> dict[str, Any]:
    """Return a core's configuration but for the KMS; keys are checked every second."""
    config: dict[str, Any] = {
        "ServiceName": "suite",
        "ProductID": "tests",
        "Metastore": "rdbms",
        "EnableSessionCaching": True,
        "CheckInterval": 1 if core == "rust" else 1_000_000_000,
        "ExpireAfter": 90 * 24 * 3600 * (1 if core == "rust" else 1_000_000_000),
    }
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        return config | {"Metastore": "sqlite", "ConnectionString": rest.removeprefix("/")}
    if core == "rust":
        return config | {"ConnectionString": url, "ConfigDriftForceRun": True}
    if scheme == "postgres":
        return config | {"ConnectionString": _with_option(url, "sslmode=disable"), "SQLMetastoreDBType": "postgres"}
    user, _, place = rest.partition("@")
    host, _, name = place.partition("/")
    return config | {
        "ConnectionString": f"{user}:@tcp({host})/{name}" if ":" not in user else f"{user}@tcp({host})/{name}"
    }


def _with_option(url: str, option: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{option}"
