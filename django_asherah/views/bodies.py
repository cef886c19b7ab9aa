"""A part of an open file as the body of a streaming response."""

from __future__ import annotations

from typing import Any, Self

from asgiref.sync import sync_to_async

from django_asherah.envelope.files import CHUNK_LENGTH


class Body:
    """For WSGI. The response closes it, and it the file."""

    def __init__(self, file: Any, length: int) -> None:
        """Take a file at the first byte, and how many to send."""
        self._file = file
        self._left = length

    def read(self) -> bytes:
        """Return at most a chunk of the rest, which is authenticated; what is not raises a ``DecryptionError``."""
        part: bytes = self._file.read(min(CHUNK_LENGTH, self._left))
        self._left -= len(part)
        return part

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        part = self.read()
        if not part:
            raise StopIteration
        return part


class AsyncBody:
    """For ASGI, where Django would read all of a body that is not asynchronous before it sends the first byte."""

    def __init__(self, body: Body) -> None:
        self._read = sync_to_async(body.read)
        self.close = body.close

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        part = await self._read()
        if not part:
            raise StopAsyncIteration
        return part
