"""What a save leaves behind in a storage when it fails."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import PurePosixPath

from django.core.files.storage import Storage

from django_asherah.envelope.files import read_fully
from django_asherah.s3reader import in_ranges


def is_local(storage: Storage, name: str) -> bool:
    """Tell whether the storage keeps its files in a file system, where a beginning is read without the rest."""
    try:
        storage.path(name)
    except NotImplementedError:
        return False
    return True


def remove_leftover(storage: Storage, name: str, header: bytes) -> None:
    """Delete the file that a failed save has begun to write, and nobody else's.

    Args:
        storage: where it was to go.
        name: the name that it was to get. It may have got another if this was taken at the last moment.
        header: what its file begins with, and no other does.
    """
    too_short = []
    for found in _names(storage, name):
        start = _start_of(storage, found, len(header))
        if start == header:
            storage.delete(found)
            return
        if start is not None and header.startswith(start):
            too_short.append(found)
    # On a full disk not even the header was written. The storage has made a file, so if there is one, it is that: had
    # somebody else taken the name in the same moment, there would be two. Unless nobody has the name: then the storage
    # has left nothing, as one that puts whole files in their place does.
    if len(too_short) == 1 and is_local(storage, name) and storage.exists(name):
        storage.delete(too_short[0])


def _names(storage: Storage, name: str) -> Iterator[str]:
    yield name
    if is_local(storage, name):
        folder, file = posixpath.split(name)
        root = file.removesuffix("".join(PurePosixPath(file).suffixes))  # As Django makes another name of it.
        for other in storage.listdir(folder)[1]:
            if other != file and other.startswith(f"{root}_"):
                yield posixpath.join(folder, other)


def _start_of(storage: Storage, name: str, length: int) -> bytes | None:
    try:
        with in_ranges(storage, storage.open(name, "rb")) as file:
            return read_fully(file, length)
    except FileNotFoundError:
        return None
