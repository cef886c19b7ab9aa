"""The suites of the Django that is installed: fetched from the package index, checked, and kept outside git."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import urljoin
from urllib.request import Request, urlopen

import django

DEFAULT_INDEX = "https://pypi.org/simple"
TIMEOUT = 120
"""Seconds for the index to answer."""


def fetch_suites(cache: Path) -> Path:
    """Return Django's folder ``tests``, which is downloaded into ``cache`` the first time.

    Raises:
        LookupError: the index has no source distribution of this version.
        ValueError: what was downloaded is not what the index says.
        OSError: the index can't be reached, or the cache can't be written.
    """
    folder = cache / f"django-{django.__version__}"
    if not folder.exists():
        file = _find_sdist()
        archive = _read(file["url"])
        _check(archive, file)
        unpacked = cache / f".django-{django.__version__}-{os.getpid()}"
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(unpacked, [each for each in tar if "/tests/" in each.name], filter="data")
        next(unpacked.iterdir()).rename(folder)
        shutil.rmtree(unpacked)
    return folder / "tests"


def _find_sdist() -> dict[str, Any]:
    name = f"django-{django.__version__}.tar.gz"
    base = f"{_index().rstrip('/')}/django/"
    page = json.loads(_read(base, "application/vnd.pypi.simple.v1+json"))
    for file in page["files"]:
        if file["filename"].lower() == name:
            return {**file, "url": urljoin(base, file["url"])}
    raise LookupError(f"{base} has no {name}")


def _index() -> str:
    return os.environ.get("PIP_INDEX_URL") or os.environ.get("UV_DEFAULT_INDEX") or DEFAULT_INDEX


def _read(url: str, accept: str = "*/*") -> bytes:
    with urlopen(Request(url, headers={"Accept": accept}), timeout=TIMEOUT) as answer:
        content: bytes = answer.read()
    return content


def _check(archive: bytes, file: dict[str, Any]) -> None:
    found = hashlib.sha256(archive).hexdigest()
    if found != file["hashes"]["sha256"]:
        raise ValueError(f"{file['filename']} has the SHA-256 {found}, and the index says {file['hashes']['sha256']}")
