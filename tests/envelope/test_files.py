"""The file format: its header, chunks and bounds; what becomes of content is in ``tests/test_storage.py``."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from django_asherah.envelope import files
from django_asherah.envelope.aead import StreamCipher
from django_asherah.envelope.files import (
    CHUNK_LENGTH,
    MAX_RECORD_LENGTH,
    SEALED_CHUNK_LENGTH,
    Header,
    open_chunk,
    read_header,
    seal_chunks,
)
from django_asherah.envelope.streams import SealingReader
from django_asherah.exceptions import EncryptionError, InvalidRecordError

HEADER = b"ASHERAH\x01" + (5).to_bytes(4) + b"12345"


def test_the_header_byte_for_byte() -> None:
    header = read_header(io.BytesIO(HEADER + b"the first chunk"))
    assert (header.record, header.length, header.encode()) == (b"12345", 17, HEADER)
    assert [header.offset_of(number) for number in range(3)] == [17, 17 + 65_552, 17 + 2 * 65_552]


@pytest.mark.parametrize("length", range(len(HEADER)))
def test_a_header_that_was_cut_off_is_refused(length: int) -> None:
    reason = (
        "not an encrypted file$" if length < 7 else "version 1, or cut off" if length < 12 else "cut off in its header"
    )
    with pytest.raises(InvalidRecordError, match=reason):
        read_header(io.BytesIO(HEADER[:length]))


def test_another_version_is_refused() -> None:
    with pytest.raises(InvalidRecordError, match="not an encrypted file of version 1"):
        read_header(io.BytesIO(b"ASHERAH\x02" + HEADER[8:]))


@pytest.mark.parametrize(("length", "fits"), [(MAX_RECORD_LENGTH, True), (MAX_RECORD_LENGTH + 1, False)])
def test_a_record_in_a_header_has_at_most_4096_bytes(length: int, fits: bool) -> None:
    file = io.BytesIO(b"ASHERAH\x01" + length.to_bytes(4) + bytes(length))
    if fits:
        assert read_header(file).record == bytes(4096)
    else:
        with pytest.raises(InvalidRecordError, match="not an encrypted file of version 1"):
            read_header(file)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_file_may_give_less_than_it_is_asked_for(size: int) -> None:
    class Slow(io.BytesIO):
        def read(self, wanted: int | None = -1, /) -> bytes:
            return super().read(min(size, wanted or 0))

    assert read_header(Slow(HEADER)).record == b"12345"


@pytest.mark.parametrize(
    ("sealed", "content"),
    [(16, 0), (17, 1), (65_552, 65_536), (65_552 + 17, 65_537), (2 * 65_552, 131_072), (2 * 65_552 + 100, 131_156)],
)
def test_a_whole_files_length_tells_its_contents_length(sealed: int, content: int) -> None:
    assert Header(b"12345").content_length(17 + sealed) == content


@pytest.mark.parametrize("sealed", [-17, -1, 0, 1, 15, 65_552 + 1, 65_552 + 16])
def test_no_whole_file_has_such_a_length(sealed: int) -> None:
    with pytest.raises(InvalidRecordError, match="it was cut off"):
        Header(b"12345").content_length(17 + sealed)


def test_the_last_chunk_alone_is_sealed_as_the_last() -> None:
    stream = StreamCipher(bytes(32), b"")
    full, rest = seal_chunks(stream, [bytes(CHUNK_LENGTH), b"x"])
    assert stream.open(0, full, last=False) == bytes(CHUNK_LENGTH)
    assert stream.open(1, rest, last=True) == b"x"


def test_ciphertext_can_be_wound_back_to_its_start_and_nowhere_else() -> None:
    made: list[int] = []

    def start() -> tuple[bytes, Iterator[bytes]]:
        made.append(1)
        return b"a", iter([b"b", b"c"])

    reader = SealingReader(start)
    assert reader.header == b"a"
    assert (reader.seek(0), len(made)) == (0, 1)
    assert reader.read() == b"abc"
    assert (reader.seek(0), len(made)) == (0, 2)
    assert reader.read() == b"abc"
    for offset, whence in ((1, io.SEEK_SET), (0, io.SEEK_CUR), (0, io.SEEK_END)):
        with pytest.raises(io.UnsupportedOperation, match="only be wound back to its start"):
            reader.seek(offset, whence)


def test_a_key_seals_no_more_chunks_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    assert files.MAX_CHUNKS == 4_294_967_296
    monkeypatch.setattr(files, "MAX_CHUNKS", 2)
    stream = StreamCipher(bytes(32), b"")

    def pieces(last: int) -> Iterator[bytes]:
        yield from (bytes(CHUNK_LENGTH), bytes(last))

    assert [len(chunk) for chunk in seal_chunks(stream, pieces(CHUNK_LENGTH))] == [SEALED_CHUNK_LENGTH] * 2
    with pytest.raises(EncryptionError, match="at most 131072 bytes"):
        list(seal_chunks(stream, pieces(CHUNK_LENGTH + 1)))


def test_only_a_file_without_content_has_an_empty_chunk() -> None:
    stream = StreamCipher(bytes(32), b"")
    assert open_chunk(stream, 0, stream.seal(0, b"", last=True), last=True) == b""
    with pytest.raises(InvalidRecordError, match="ends in an empty chunk"):
        open_chunk(stream, 1, stream.seal(1, b"", last=True), last=True)
