"""Encrypted files as Python streams."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

from django_asherah.envelope.files import CHUNK_LENGTH, SEALED_CHUNK_LENGTH, open_chunk, read_fully, read_header
from django_asherah.exceptions import AsherahError, DecryptionError

if TYPE_CHECKING:
    from django_asherah.envelope.session import Session

T = TypeVar("T")


class SealingReader(io.RawIOBase):
    """A file's ciphertext while it is made. It begins again, under another key, when it is wound back.

    Attributes:
        header: what it begins with. No other file ever does, for it holds a key of its own.
        is_new: nothing of it has been read.
    """

    def __init__(self, start: Callable[[], tuple[bytes, Iterator[bytes]]]) -> None:
        """Take what makes a key and returns the header and the sealed chunks.

        The key and the first chunk are made now, so that their failure comes before anything is written.
        """
        self._start = start
        self._held = memoryview(b"")
        self._begin()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer: some storages take less than they asked for as the end."""
        self.is_new = False
        target, filled = memoryview(buffer).cast("B"), 0
        while filled < len(target):
            if not self._held:
                part = next(self._parts, None)
                if part is None:
                    break
                self._held = memoryview(part)
            count = min(len(self._held), len(target) - filled)
            target[filled : filled + count] = self._held[:count]
            self._held = self._held[count:]
            filled += count
        return filled

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go back to the start: nowhere else is possible."""
        if (offset, whence) != (0, io.SEEK_SET):
            raise io.UnsupportedOperation("ciphertext can only be wound back to its start")
        if not self.is_new:
            # Never the same key twice: the content may have changed, and its nonces would be the same.
            self._begin()
        return 0

    def _begin(self) -> None:
        self.header, self._parts = self._start()
        self._held = memoryview(self.header + next(self._parts))
        self.is_new = True


class OpeningReader(io.RawIOBase):
    """A file's content, chunk by chunk. Every method that reads raises the errors of ``Session.open_file``.

    Attributes:
        identity: 32 hex digits that no other file has. The header holds the key of this content alone, so what has the
            same ones has the same content.
    """

    def __init__(self, name: str, sealed: Any, session: Session) -> None:
        """Read the header of ``sealed``, a binary file that can seek; ``name`` is for errors."""
        self._name = name
        self._sealed = sealed
        self._session = session
        self._header = self._authentic(lambda: read_header(sealed))
        self._stream = at_file(name, lambda: session.open_file(self._header.record))
        self.identity = sha256(self._header.record).hexdigest()[:32]
        self._ahead = b""
        self._next = 0
        self._position = 0
        self._number, self._chunk = -1, b""
        self._end: int | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in the content."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read at most to the end of a chunk."""
        if self._end is not None and self._position >= self._end:
            return 0
        number, start = divmod(self._position, CHUNK_LENGTH)
        if number != self._number:
            self._load(number)
        part = self._chunk[start : start + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position in the content."""
        base = {io.SEEK_SET: lambda: 0, io.SEEK_CUR: lambda: self._position, io.SEEK_END: self._find_end}[whence]()
        target = base + offset
        if target < 0:
            raise ValueError(f"negative seek position {target}")
        if target > self._position:
            self._find_end()  # So that the end is the authenticated one, and not where the file was cut off.
        self._position = target
        return target

    def close(self) -> None:
        """Close the file underneath, too."""
        self._sealed.close()
        super().close()

    def _find_end(self) -> int:
        """Open the last chunk, which proves where the end is."""
        if self._end is None:
            length = self._authentic(lambda: self._header.content_length(self._sealed.seek(0, io.SEEK_END)))
            self._next = -1
            self._load(max(length - 1, 0) // CHUNK_LENGTH)
        return self._end or 0

    def _load(self, number: int) -> None:
        if number != self._next:
            self._sealed.seek(self._header.offset_of(number))
            self._ahead = b""
        # One byte more than the chunk tells whether it is the last.
        sealed = self._ahead + read_fully(self._sealed, SEALED_CHUNK_LENGTH + 1 - len(self._ahead))
        last = len(sealed) <= SEALED_CHUNK_LENGTH
        self._ahead = sealed[SEALED_CHUNK_LENGTH:]
        chunk = self._authentic(lambda: open_chunk(self._stream, number, sealed[:SEALED_CHUNK_LENGTH], last=last))
        self._number, self._next, self._chunk = number, number + 1, chunk
        if last:
            self._end = number * CHUNK_LENGTH + len(chunk)

    def _authentic(self, work: Callable[[], T]) -> T:
        """Do what fails if the file was tampered with, and tell of it then."""
        try:
            return at_file(self._name, work)
        except DecryptionError as exc:
            self._session.tell_refused(exc)
            raise


def at_file(name: str, work: Callable[[], T]) -> T:
    """Do it, and put the file's name before what an error says."""
    try:
        return work()
    except AsherahError as exc:
        exc.at(f"file {name!r}")
        raise
