"""An object in S3, read in ranges."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from typing import Any

from django.core.files.storage import Storage

from django_asherah.envelope.forksafe import any_fraction

FIRST_LENGTH = 128 * 1024
"""Bytes that are asked for first, after a jump, too: a header and a chunk."""

MAX_LENGTH = 8 * 1024**2
"""Bytes that are asked for at most: the memory that reading takes."""

_ATTEMPTS = 3
"""As boto3 asks again only until an answer begins."""

_PAUSE = 0.2
"""Seconds at most before the second attempt, and twice as long before the third."""

_DOWNLOAD_PARAMETERS = (
    "ExpectedBucketOwner",
    "RequestPayer",
    "SSECustomerAlgorithm",
    "SSECustomerKey",
    "SSECustomerKeyMD5",
)
"""Those of an upload's parameters that a download needs, too."""


def reads_in_ranges(storage: Storage) -> bool:
    """Tell whether this is django-storages' S3 storage, and leaves its objects as they are."""
    backend: Any = sys.modules.get("storages.backends.s3")
    return backend is not None and isinstance(storage, backend.S3Storage) and not storage.gzip


def in_ranges(storage: Storage, file: Any) -> Any:
    """Return what reads ``file``, which ``storage`` has opened: in ranges, if that is possible.

    django-storages' own file downloads the whole object when its first byte is read.
    """
    # A subclass may do something of its own with the bytes.
    if not reads_in_ranges(storage) or type(file) is not sys.modules["storages.backends.s3"].S3File:
        return file
    parameters = storage.get_object_parameters(file.name)  # type: ignore[attr-defined]
    return S3Reader(file.obj, {name: parameters[name] for name in _DOWNLOAD_PARAMETERS if name in parameters})


class S3Reader(io.RawIOBase):
    """Reads ahead, the further the longer what is read is in one piece."""

    def __init__(
        self,
        object: Any,
        parameters: dict[str, Any],
        *,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = any_fraction,
    ) -> None:
        """Take boto3's ``Object``, the parameters of its ``get()``, and what waits and cuts pauses by a fraction."""
        self._object = object
        self._parameters = parameters
        self._sleep = sleep
        self._random = random
        self._end: int = object.content_length
        self._position = 0
        self._start, self._held = 0, memoryview(b"")
        self._ahead = FIRST_LENGTH

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position; nothing is asked for yet."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._end}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read at most to the end of what is held."""
        if self._position >= self._end:
            return 0
        if not self._start <= self._position < self._start + len(self._held):
            self._fetch()
        at = self._position - self._start
        part = self._held[at : at + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)

    def _fetch(self) -> None:
        goes_on = self._position == self._start + len(self._held)
        self._ahead = min(2 * self._ahead, MAX_LENGTH) if goes_on and self._held else FIRST_LENGTH
        self._held = memoryview(b"")  # Never two of them at a time.
        self._held = memoryview(self._get(self._position, min(self._position + self._ahead, self._end) - 1))
        self._start = self._position

    def _get(self, first: int, last: int) -> bytes:
        for attempt in range(1, _ATTEMPTS + 1):
            answer = self._object.get(Range=f"bytes={first}-{last}", **self._parameters)
            try:
                data: bytes = answer["Body"].read()
            except Exception:
                if attempt == _ATTEMPTS:
                    raise
                self._sleep(_PAUSE * attempt * self._random())
            else:
                break
        return data
