"""The file format: a header with a data row record, and the content in chunks, each bound to its number.

Byte layout, version 1. It is a contract: what is stored in it must stay readable, so it may never change; another
layout gets another version byte. ``docs/reference/file-format.md`` is the same for readers of other languages.

====== ================ ============================================================================
offset length           meaning
====== ================ ============================================================================
0      8                ``ASHERAH`` in ASCII and the version, 0x01
8      4                n, the length of the record: unsigned, big-endian, at most 4096
12     n                a data row record as JSON; its payload are the first 8 bytes of the file
12 + n 65,552 a chunk   65,536 bytes of content, sealed under the record's data row key; the last is
                        shorter or as long, and empty only if the whole content is
====== ================ ============================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from django_asherah.envelope.aead import KEY_LENGTH, NONCE_LENGTH, TAG_LENGTH, StreamCipher
from django_asherah.envelope.records import DataRowKey, DataRowRecord, KeyMeta, encode_row
from django_asherah.exceptions import EncryptionError, InvalidRecordError

FILE_START = b"ASHERAH\x01"

CHUNK_LENGTH = 64 * 1024
"""Bytes of content in every chunk but the last."""

SEALED_CHUNK_LENGTH = CHUNK_LENGTH + TAG_LENGTH

MAX_RECORD_LENGTH = 4096
"""Bytes: more than the longest key id of 255 characters can need."""

MAX_CHUNKS = 2**32
"""As many as one key may seal (NIST SP 800-38D, 8.3): 256 TiB of content."""

_PREFIX_LENGTH = len(FILE_START) + 4


class Readable(Protocol):
    """A binary file to read from."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file begins with."""

    record: bytes

    @property
    def length(self) -> int:
        """Bytes before the first chunk."""
        return _PREFIX_LENGTH + len(self.record)

    def encode(self) -> bytes:
        """Return the header's bytes."""
        return FILE_START + len(self.record).to_bytes(4) + self.record

    def offset_of(self, number: int) -> int:
        """Return the offset of a chunk in the file."""
        return self.length + number * SEALED_CHUNK_LENGTH

    def content_length(self, file_length: int) -> int:
        """Return how many bytes of content a whole file of this length has. Proves nothing: only opening it does.

        Raises:
            InvalidRecordError: no file has that length.
        """
        chunks, rest = divmod(file_length - self.length, SEALED_CHUNK_LENGTH)
        is_whole = rest > TAG_LENGTH or (rest == 0 and chunks > 0) or (rest == TAG_LENGTH and chunks == 0)
        if not is_whole or chunks < 0:
            raise InvalidRecordError("not a whole encrypted file: it was cut off")
        return file_length - self.length - TAG_LENGTH * (chunks + bool(rest))


def header_like(key_id: str) -> Header:
    """Return a header as long as that of every file whose key is sealed by a key of this id, and nothing else of it.

    Every part of a record has one length, but for the key id; its times have 10 digits until the year 2286.
    """
    created, sealed = 10**9, bytes(TAG_LENGTH + NONCE_LENGTH)
    row_key = DataRowKey(created, sealed + bytes(KEY_LENGTH), KeyMeta(key_id, created))
    return Header(encode_row(DataRowRecord(row_key, sealed + FILE_START)).encode())


def read_header(file: Readable) -> Header:
    """Read a file's header.

    Raises:
        InvalidRecordError: it is no encrypted file of this version.
    """
    prefix = read_fully(file, _PREFIX_LENGTH)
    if not prefix.startswith(FILE_START[:-1]):
        raise InvalidRecordError("not an encrypted file")
    length = int.from_bytes(prefix[len(FILE_START) :])
    if not prefix.startswith(FILE_START) or len(prefix) < _PREFIX_LENGTH or length > MAX_RECORD_LENGTH:
        raise InvalidRecordError("not an encrypted file of version 1, or cut off in its header")
    record = read_fully(file, length)
    if len(record) < length:
        raise InvalidRecordError("not a whole encrypted file: it was cut off in its header")
    return Header(record)


def read_fully(file: Readable, size: int) -> bytes:
    """Read ``size`` bytes, or as many as there are."""
    parts = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def seal_chunks(stream: StreamCipher, content: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the sealed chunks of content that comes in pieces of any length.

    Raises:
        EncryptionError: it is longer than one key may seal.
    """
    held = bytearray()
    number = 0
    for piece in content:
        held += piece
        while len(held) > CHUNK_LENGTH:  # Only more content tells that a full chunk isn't the last.
            yield stream.seal(number, bytes(held[:CHUNK_LENGTH]), last=False)
            del held[:CHUNK_LENGTH]
            number += 1
            if number == MAX_CHUNKS:
                raise EncryptionError(f"a file holds at most {MAX_CHUNKS * CHUNK_LENGTH} bytes")
    yield stream.seal(number, bytes(held), last=True)


def open_chunk(stream: StreamCipher, number: int, sealed: bytes, *, last: bool) -> bytes:
    """Open a chunk.

    Raises:
        DecryptionError: it is not the one of this number, or not the last though it should be.
        InvalidRecordError: there are more chunks than content.
    """
    chunk = stream.open(number, sealed, last=last)
    if number and not chunk:
        raise InvalidRecordError("not an encrypted file: it ends in an empty chunk")
    return chunk
