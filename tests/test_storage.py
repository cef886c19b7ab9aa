"""EncryptedStorage: what is saved comes back, and nothing but what was saved."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import re
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, cast

import boto3
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage, InMemoryStorage, storages
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.db import connection, models, transaction
from django.db.migrations.writer import MigrationWriter
from django.test import override_settings
from moto import mock_aws
from storages.backends.s3 import S3Storage

from django_asherah import engine
from django_asherah.envelope.files import CHUNK_LENGTH, FILE_START, Header, read_header, seal_chunks
from django_asherah.envelope.policy import CryptoPolicy
from django_asherah.envelope.session import SessionFactory
from django_asherah.envelope.streams import OpeningReader
from django_asherah.exceptions import (
    AsherahError,
    DecryptionError,
    EncryptionError,
    InvalidRecordError,
    PartitionMismatchError,
)
from django_asherah.guard import partition_guard
from django_asherah.kms.static import StaticKMS
from django_asherah.metastores.memory import MemoryMetastore
from django_asherah.storage import EncryptedStorage
from tests.databases import VENDOR, as_asherah
from tests.memory import peak_of
from tests.moto_servers import ACCESS
from tests.testapp.models import Attachment

SEALED = CHUNK_LENGTH + 16
VECTOR = Path(__file__).parent / "vectors" / "file_v1.bin"


@pytest.fixture(autouse=True)
def _keys_in_memory(settings: Any) -> None:
    settings.ASHERAH = as_asherah(METASTORE="memory")


@pytest.fixture
def inner() -> InMemoryStorage:
    return InMemoryStorage()


@pytest.fixture
def storage(inner: InMemoryStorage) -> EncryptedStorage:
    return EncryptedStorage(inner)


def pattern(length: int) -> bytes:
    return (b"".join(n.to_bytes(4) for n in range(length // 4 + 1)))[:length]


def sealed(storage: EncryptedStorage, name: str) -> bytes:
    with storage.storage.open(name) as file:
        return bytes(file.read())


def put(storage: EncryptedStorage, data: bytes, name: str = "x") -> None:
    storage.delete(name)
    storage.storage.save(name, ContentFile(data))


def content(storage: EncryptedStorage, name: str) -> bytes:
    with storage.open(name) as file:
        return bytes(file.read())


def parts(data: bytes) -> tuple[bytes, list[bytes]]:
    """Return a file's header and its sealed chunks."""
    start = read_header(io.BytesIO(data)).length
    return data[:start], [data[at : at + SEALED] for at in range(start, len(data), SEALED)]


LENGTHS = [0, 1, CHUNK_LENGTH - 1, CHUNK_LENGTH, CHUNK_LENGTH + 1, 2 * CHUNK_LENGTH, 3 * CHUNK_LENGTH + 7]


class TestRoundTrip:
    @pytest.mark.parametrize("length", LENGTHS)
    def test_content_comes_back_and_is_not_in_the_file(self, storage: EncryptedStorage, length: int) -> None:
        data = pattern(length)
        name = storage.save("x", ContentFile(data))
        assert content(storage, name) == data
        assert storage.size(name) == length
        header, chunks = parts(sealed(storage, name))
        assert len(chunks) == max(1, -(-length // CHUNK_LENGTH))
        assert length < 16 or data[:16] not in sealed(storage, name)
        assert header.startswith(FILE_START)

    def test_the_same_content_is_another_file_each_time(self, storage: EncryptedStorage) -> None:
        storage.save("a", ContentFile(b"same"))
        storage.save("b", ContentFile(b"same"))
        assert sealed(storage, "a")[-20:] != sealed(storage, "b")[-20:]

    @pytest.mark.parametrize("length", LENGTHS)
    def test_any_place_can_be_read(self, storage: EncryptedStorage, length: int) -> None:
        data = pattern(length)
        storage.save("x", ContentFile(data))
        with storage.open("x") as file:
            for place in sorted({0, 1, length // 2, max(length - 1, 0), length, length + 5}, reverse=True):
                assert file.seek(place) == place
                assert file.read(100) == data[place : place + 100]
            assert file.seek(0, io.SEEK_END) == length
            assert file.read() == b""
            assert file.seek(0) == 0
            assert file.read() == data
            assert file.tell() == length
            assert file.size == length
        assert b"".join(storage.open("x").chunks(1000)) == data
        lines: Any = storage.open("x").file
        assert list(lines) == list(io.BytesIO(data))

    def test_content_may_come_in_any_pieces_and_as_text(self, storage: EncryptedStorage) -> None:
        class Pieces(File):  # type: ignore[type-arg]
            def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
                yield from (b"", b"a" * (CHUNK_LENGTH + 1), b"", b"b", b"c" * (2 * CHUNK_LENGTH))

        storage.save("x", Pieces(io.BytesIO(), "x"))
        assert content(storage, "x") == b"a" * (CHUNK_LENGTH + 1) + b"b" + b"c" * (2 * CHUNK_LENGTH)
        storage.save("text", ContentFile("Zoë"))
        assert content(storage, "text") == "Zoë".encode()
        storage.save("raw", io.BytesIO(b"no Django file"))
        assert content(storage, "raw") == b"no Django file"

    def test_the_wrapped_storage_never_gets_hold_of_an_uploads_temporary_file(self, tmp_path: Path) -> None:
        """``FileSystemStorage`` would move it into place as it is."""
        upload = TemporaryUploadedFile("x", "text/plain", 6, None)
        upload.write(b"secret")
        upload.seek(0)
        storage = EncryptedStorage(FileSystemStorage(tmp_path))
        storage.save("x", upload)
        assert b"secret" not in (tmp_path / "x").read_bytes()
        assert content(storage, "x") == b"secret"
        upload.close()

    def test_a_storage_may_ask_for_the_file_again(self, inner: InMemoryStorage) -> None:
        class Twice(InMemoryStorage):
            first = b""

            def _save(self, name: str, content: Any) -> str:
                self.first = content.read(100_000)
                return super()._save(name, content)  # type: ignore[misc, no-any-return]

        twice = Twice()
        storage = EncryptedStorage(twice)
        data = pattern(200_000)
        storage.save("x", ContentFile(data))
        assert content(storage, "x") == data
        assert len(twice.first) == 100_000
        # Another key, so that no place is ever sealed twice under one.
        assert parts(twice.first)[0] != parts(sealed(storage, "x"))[0]

    def test_closing_closes_the_wrapped_file(self, tmp_path: Path) -> None:
        storage = EncryptedStorage(FileSystemStorage(tmp_path))
        storage.save("x", ContentFile(b"x"))
        file: Any = storage.open("x")
        under = file.file.raw._sealed
        file.close()
        assert under.closed


class TestTampering:
    @pytest.fixture
    def small(self, storage: EncryptedStorage) -> bytes:
        storage.save("x", ContentFile(b"hello"))
        return sealed(storage, "x")

    @pytest.fixture
    def long(self, storage: EncryptedStorage) -> bytes:
        storage.save("x", ContentFile(pattern(3 * CHUNK_LENGTH + 5)))
        return sealed(storage, "x")

    def refused(self, storage: EncryptedStorage, data: bytes, error: type[Exception] = DecryptionError) -> None:
        put(storage, data)
        with pytest.raises(error, match=r"^file 'x': "):
            content(storage, "x")
        with pytest.raises(error, match=r"^file 'x': "), storage.open("x") as file:
            file.seek(0, io.SEEK_END)

    def test_every_truncation(self, storage: EncryptedStorage, small: bytes) -> None:
        for length in range(len(small)):
            self.refused(storage, small[:length])

    def test_every_bit_flip(self, storage: EncryptedStorage, small: bytes) -> None:
        survived = set()
        for at, bit in itertools.product(range(len(small)), range(8)):
            data = bytearray(small)
            data[at] ^= 1 << bit
            put(storage, bytes(data))
            with suppress(AsherahError):
                assert content(storage, "x") == b"hello"
                survived.add(at)
        # Asherah's record has parts that nothing depends on: when the data row key was made, and the name of that part.
        start = small.index(b'"Created":')
        assert survived <= set(range(start, start + len(b'"Created":1234567890')))

    @pytest.mark.parametrize("cut", [1, 15, 16, 17, SEALED - 1, SEALED, SEALED + 1, 2 * SEALED])
    def test_a_tail_cut_off(self, storage: EncryptedStorage, long: bytes, cut: int) -> None:
        self.refused(storage, long[:-cut])

    def test_an_end_at_a_chunks_end(self, storage: EncryptedStorage, long: bytes) -> None:
        header, chunks = parts(long)
        for count in range(len(chunks)):
            self.refused(storage, header + b"".join(chunks[:count]))

    @pytest.mark.parametrize("order", [o for o in itertools.permutations(range(3)) if o != (0, 1, 2)])
    def test_another_order(self, storage: EncryptedStorage, long: bytes, order: tuple[int, ...]) -> None:
        header, chunks = parts(long)
        put(storage, header + b"".join(chunks[n] for n in order) + chunks[3])
        with pytest.raises(DecryptionError):
            content(storage, "x")

    @pytest.mark.parametrize("order", [(0, 1, 1, 2, 3), (0, 2, 3), (1, 2, 3), (0, 1, 2, 3, 3), (0, 1, 2, 2, 3), (3,)])
    def test_chunks_dropped_or_doubled(self, storage: EncryptedStorage, long: bytes, order: tuple[int, ...]) -> None:
        header, chunks = parts(long)
        self.refused(storage, header + b"".join(chunks[n] for n in order))

    def test_something_behind(self, storage: EncryptedStorage, long: bytes, small: bytes) -> None:
        for tail in (b"x", b"x" * 16, long):
            self.refused(storage, small + tail)
            self.refused(storage, long + tail)

    def test_another_files_chunk(self, storage: EncryptedStorage, long: bytes) -> None:
        storage.save("y", ContentFile(pattern(3 * CHUNK_LENGTH + 5)))
        (header, chunks), (_, others) = parts(long), parts(sealed(storage, "y"))
        for place in range(4):
            spliced = [others[n] if n == place else chunk for n, chunk in enumerate(chunks)]
            put(storage, header + b"".join(spliced))
            with pytest.raises(DecryptionError):
                content(storage, "x")

    def test_another_partition(self, storage: EncryptedStorage, inner: InMemoryStorage, small: bytes) -> None:
        with pytest.raises(PartitionMismatchError, match=r"^file 'x': "):
            EncryptedStorage(inner, partition="elsewhere").open("x")

    def test_a_columns_record_begins_no_file(self, storage: EncryptedStorage, small: bytes) -> None:
        record = engine.get_session().encrypt(b"a column's value").encode()
        self.refused(storage, Header(record).encode() + parts(small)[1][0])

    @pytest.mark.parametrize(
        "data",
        [b"", b"secret", FILE_START, FILE_START + b"\xff" * 4, FILE_START + b"\0\0\0\0", b"ASHERAH\x02" + b"\0" * 50],
    )
    def test_no_encrypted_file_at_all(self, storage: EncryptedStorage, data: bytes) -> None:
        self.refused(storage, data, InvalidRecordError)
        with pytest.raises(InvalidRecordError, match=r"^file 'x': "):
            storage.size("x")

    def test_an_empty_chunk_at_the_end(self, storage: EncryptedStorage) -> None:
        record, stream = engine.get_session().start_file()
        chunks = stream.seal(0, b"x" * CHUNK_LENGTH, last=False) + stream.seal(1, b"", last=True)
        self.refused(storage, Header(record.encode()).encode() + chunks, InvalidRecordError)

    def test_seeking_past_a_cut_does_not_hide_it(self, storage: EncryptedStorage, long: bytes) -> None:
        header, chunks = parts(long)
        put(storage, header + b"".join(chunks[:2]))
        with storage.open("x") as file:
            assert file.read(10) == pattern(10)
            with pytest.raises(DecryptionError):
                file.seek(3 * CHUNK_LENGTH)


class TestFormat:
    """The bytes are a contract: files that are stored must stay readable."""

    def factory(self) -> SessionFactory:
        numbers = itertools.count()

        def random(length: int) -> bytes:
            return hashlib.shake_256(next(numbers).to_bytes(4)).digest(length)

        kms = StaticKMS(b"m" * 32, random)
        return SessionFactory(
            "svc", "prod", MemoryMetastore(), kms, CryptoPolicy(), clock=lambda: 1_700_000_000.0, random=random
        )

    @pytest.mark.parametrize(
        ("length", "digest"),
        [
            (0, "941e630e4929207ad2f958447cbcdecdfe92030fd0ab3daed5126003a6cb88d9"),
            (5, "429f585942be2b6cfa6e4169f82c38bd680b8b7a789cfca233206b26276fab6f"),
            (CHUNK_LENGTH, "b6f9647cee32a26ac2ddff3642a86a81d59610c61ce0adaf2ef8dac5adac79a4"),
            (CHUNK_LENGTH + 1, "a5f928c2eebab4de238b4fa4ef5ee34838df8f7a736c0b27ee1615407d082ef2"),
        ],
    )
    def test_files_are_written_as_ever(self, length: int, digest: str) -> None:
        record, stream = self.factory().get_session("files").start_file()
        data = Header(record.encode()).encode() + b"".join(seal_chunks(stream, [pattern(length)]))
        assert hashlib.sha256(data).hexdigest() == digest

    def test_a_file_that_was_written_once_opens(self) -> None:
        factory = self.factory()
        session = factory.get_session("files")
        session.encrypt(b"")  # Makes the very keys that it was written under.
        reader = OpeningReader("v1", io.BytesIO(VECTOR.read_bytes()), session)
        assert io.BufferedReader(reader).read() == b"hello, file"

    def test_a_reader_made_from_the_document_alone_opens_it(self) -> None:
        factory = self.factory()
        factory.get_session("files").encrypt(b"")
        system, intermediate = (record.key for record in factory.metastore.records.values())  # type: ignore[attr-defined]

        def opened(key: bytes, blob: bytes) -> bytes:
            return AESGCM(key).decrypt(blob[-12:], blob[:-12], None)

        data = VECTOR.read_bytes()
        assert data[:8] == b"ASHERAH\x01"
        end = 12 + int.from_bytes(data[8:12])
        record = json.loads(data[12:end])
        key = opened(opened(opened(b"m" * 32, system), intermediate), b64decode(record["Key"]["Key"]))
        assert opened(key, b64decode(record["Data"])) == data[:8]
        assert AESGCM(key).decrypt(bytes(11) + b"\x01", data[end:], data[:8]) == b"hello, file"


class TestMemory:
    @pytest.mark.slow
    @pytest.mark.skipif(VENDOR != "sqlite", reason="files are sealed alike whatever the database")
    @pytest.mark.memory
    def test_of_a_gibibyte_is_bounded_both_ways(self, tmp_path: Path) -> None:
        class Zeros(File):  # type: ignore[type-arg]
            def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
                yield from itertools.repeat(bytes(CHUNK_LENGTH), 16 * 1024)

        def work() -> int:
            storage.save("x", Zeros(io.BytesIO(), "x"))
            with storage.open("x") as file:
                return sum(chunk.count(0) for chunk in file.chunks())

        storage = EncryptedStorage(FileSystemStorage(tmp_path))
        try:
            zeros, peak = peak_of(work)
            assert zeros == storage.size("x") == 1024**3
            assert peak < 4 * 1024**2
        finally:
            storage.delete("x")  # pytest keeps its folders.


class TestStorage:
    def test_works_as_a_backend_of_storages(self, settings: Any, tmp_path: Path) -> None:
        settings.STORAGES = settings.STORAGES | {
            "encrypted": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": tmp_path}},
            "default": {"BACKEND": "django_asherah.storage.EncryptedStorage", "OPTIONS": {"partition": "files"}},
        }
        from django.core.files.storage import default_storage

        name = default_storage.save("a/x", ContentFile(b"secret"))
        assert default_storage.open(name).read() == b"secret"
        assert b"_IK_files_suite_tests" in (tmp_path / "a" / "x").read_bytes()
        assert isinstance(storages["default"], EncryptedStorage)

    def test_hands_on_what_needs_no_content(self, storage: EncryptedStorage, inner: InMemoryStorage) -> None:
        assert storage.save("d/x", ContentFile(b"1")) == "d/x"
        other = storage.save("d/x", ContentFile(b"2"))
        assert other != "d/x"
        assert storage.exists("d/x")
        assert sorted(storage.listdir("d")[1]) == sorted(["x", other.removeprefix("d/")])
        for name in ("get_accessed_time", "get_created_time", "get_modified_time"):
            assert getattr(storage, name)("d/x") == getattr(inner, name)("d/x")
        storage.delete("d/x")
        assert not storage.exists("d/x")
        with pytest.raises(FileNotFoundError):
            storage.open("d/x")

    def test_the_other_storage_chooses_the_names(self) -> None:
        class Shouting(InMemoryStorage):
            def get_valid_name(self, name: str) -> str:
                return name.upper()

            def get_alternative_name(self, file_root: str, file_ext: str) -> str:
                return f"{file_root} again{file_ext}"

            def generate_filename(self, filename: Any) -> str:
                return f"kept/{filename}"

        storage = EncryptedStorage(Shouting())
        assert storage.get_valid_name("scan.pdf") == "SCAN.PDF"
        assert storage.generate_filename("scan.pdf") == "kept/scan.pdf"
        storage.save("scan.pdf", ContentFile(b"1"))
        assert storage.get_available_name("scan.pdf") == "scan again.pdf"

    def test_has_no_url_but_that_of_a_view_and_no_path(self, inner: InMemoryStorage) -> None:
        with pytest.raises(NotImplementedError, match="base_url"):
            EncryptedStorage(inner).url("x")
        assert EncryptedStorage(inner, base_url="/files/").url("a/b c.pdf") == "/files/a/b%20c.pdf"
        with pytest.raises(NotImplementedError):
            EncryptedStorage(inner).path("x")

    @pytest.mark.parametrize("mode", ["r", "w", "wb", "ab", "r+b"])
    def test_opens_to_read_bytes_alone(self, storage: EncryptedStorage, mode: str) -> None:
        storage.save("x", ContentFile(b"x"))
        with pytest.raises(ValueError, match="mode 'rb' alone"):
            storage.open("x", mode)

    def test_deconstructs_for_migrations(self) -> None:
        field = models.FileField(storage=EncryptedStorage("files", partition="p"))
        made: Any = field.deconstruct()[3]["storage"]
        assert made.deconstruct() == ("django_asherah.storage.EncryptedStorage", ("files",), {"partition": "p"})


def clinic_of(name: str) -> str:
    """Return the partition that a file's first folder names."""
    return name.partition("/")[0]


def whole_name(name: str) -> str:
    """Return a partition that changes with every letter of the name."""
    return name.removesuffix(".pdf")


ANSWERS: dict[str, Any] = {}


def answer(name: str) -> Any:
    return ANSWERS[name]


class Clinics:
    @classmethod
    def of(cls, name: str) -> str:
        return clinic_of(name)

    def mine(self, name: str) -> str:
        return clinic_of(name)


class TestPartitionOfAName:
    def test_seals_and_opens_each_file_under_its_own_partition(self, inner: InMemoryStorage) -> None:
        storage = EncryptedStorage(inner, partition=clinic_of)
        for number in (7, 8):
            name = storage.save(f"clinic-{number}/scan.pdf", ContentFile(b"secret"))
            assert f"_IK_clinic-{number}_suite_tests".encode() in sealed(storage, name)
            assert content(storage, name) == b"secret"
            assert content(EncryptedStorage(inner, partition=f"clinic-{number}"), name) == b"secret"

    def test_a_file_in_another_tenants_folder_is_refused_by_its_name(self, inner: InMemoryStorage) -> None:
        storage = EncryptedStorage(inner, partition=clinic_of)
        storage.save("clinic-7/scan.pdf", ContentFile(b"secret"))
        put(storage, sealed(storage, "clinic-7/scan.pdf"), "clinic-8/scan.pdf")
        with pytest.raises(PartitionMismatchError, match=r"^file 'clinic-8/scan\.pdf': .*_IK_clinic-7_"):
            content(storage, "clinic-8/scan.pdf")

    @pytest.mark.parametrize("make", [InMemoryStorage, FileSystemStorage])
    def test_a_name_that_is_taken_or_too_long_changes_and_its_partition_does_not(
        self, make: type[Any], tmp_path: Path
    ) -> None:
        storage = EncryptedStorage(make(location=tmp_path), partition=clinic_of)
        asked = f"clinic-7/{'x' * 60}.pdf"
        names = [storage.save(asked, ContentFile(bytes([n])), max_length=40) for n in range(3)]
        assert len({asked, *names}) == 4
        assert max(map(len, names)) == 40
        assert [content(storage, name) for name in names] == [b"\0", b"\1", b"\2"]

    def test_a_name_of_another_partition_than_the_one_asked_for_is_refused_and_leaves_no_file(
        self, inner: InMemoryStorage
    ) -> None:
        storage = EncryptedStorage(inner, partition=whole_name)
        assert storage.save("a.pdf", ContentFile(b"first")) == "a.pdf"
        with pytest.raises(
            EncryptionError,
            match=r"^file 'a_\w+\.pdf': the storage chose this name, for which tests\.test_storage\.whole_name returns "
            r"partition 'a_\w+', and not 'a' as for the name that was asked for: let it look at a part of the name",
        ):
            storage.save("a.pdf", ContentFile(b"second"))
        assert inner.listdir("")[1] == ["a.pdf"]
        assert content(storage, "a.pdf") == b"first"

    def test_a_file_that_would_have_been_overwritten_stays_when_the_name_is_refused(self) -> None:
        class Overwriting(InMemoryStorage):
            def get_available_name(self, name: str, max_length: int | None = None) -> str:
                return "clinic-8/x"

            def _save(self, name: str, content: Any) -> str:
                self.delete(name)
                return super()._save(name, content)  # type: ignore[misc, no-any-return]

        storage = EncryptedStorage(Overwriting(), partition=clinic_of)
        storage.save("clinic-8/x", ContentFile(b"theirs"))
        with pytest.raises(EncryptionError, match=r"^file 'clinic-8/x': the storage chose this name"):
            storage.save("clinic-7/x", ContentFile(b"ours"))
        assert content(storage, "clinic-8/x") == b"theirs"

    @pytest.mark.parametrize(("name", "error"), [("clinic-8/x", EncryptionError), ("unknown", KeyError)])
    def test_a_name_that_changes_while_the_file_is_written_is_refused_and_leaves_no_file(
        self, name: str, error: type[Exception]
    ) -> None:
        class Racing(InMemoryStorage):
            def _save(self, _: str, content: Any) -> str:
                return super()._save(name, content)  # type: ignore[misc, no-any-return]

        ANSWERS.update({"clinic-7/x": "clinic-7", "clinic-8/x": "clinic-8"})
        storage = EncryptedStorage(Racing(), partition=answer)
        with pytest.raises(error):
            storage.save("clinic-7/x", ContentFile(b"x"))
        assert not storage.exists(name)

    def test_a_storage_that_spells_names_in_its_own_way(self) -> None:
        class Spelling(InMemoryStorage):
            def get_available_name(self, name: str, max_length: int | None = None) -> str:
                return str(PurePosixPath(name.replace("\\", "/")))

        storage = EncryptedStorage(Spelling(), partition=clinic_of)
        assert storage.save("clinic-7//x", ContentFile(b"x")) == "clinic-7/x"
        assert content(storage, "clinic-7/x") == b"x"
        for asked in ("./clinic-7/y", "clinic-7\\y"):
            with pytest.raises(EncryptionError, match=r"^file 'clinic-7/y': the storage chose this name"):
                storage.save(asked, ContentFile(b"y"))
            assert not storage.exists("clinic-7/y")

    def test_a_function_that_fails_for_the_final_name_leaves_no_file(self, inner: InMemoryStorage) -> None:
        ANSWERS.clear()
        ANSWERS["x"] = "clinic-7"
        storage = EncryptedStorage(inner, partition=answer)
        storage.save("x", ContentFile(b"first"))
        with pytest.raises(KeyError):
            storage.save("x", ContentFile(b"second"))
        with pytest.raises(KeyError):
            storage.save("y", ContentFile(b"third"))
        assert inner.listdir("")[1] == ["x"]

    @pytest.mark.parametrize(
        ("returned", "reason"),
        [
            (None, r"tests\.test_storage\.answer returned NoneType for it: it must return the file's partition, a str"),
            (7, r"tests\.test_storage\.answer returned int for it: it must return the file's partition, a str"),
            (b"clinic-7", r"tests\.test_storage\.answer returned bytes"),
            ("", "a partition must not be empty"),
            ("a\0b", "a partition must not hold NUL"),
            ("\ud800", "a partition must not hold NUL or lone surrogates"),
            ("x" * 256, "partition 'x+…' of 256 characters makes a key id of 272 characters"),
        ],
    )
    def test_what_is_no_partition_is_an_error_and_stores_nothing(
        self, inner: InMemoryStorage, returned: Any, reason: str
    ) -> None:
        storage = EncryptedStorage(inner, partition=answer)
        ANSWERS["x"] = returned
        with pytest.raises(EncryptionError, match=rf"^file 'x': {reason}"):
            storage.save("x", ContentFile(b"secret"))
        assert not inner.exists("x")
        put(EncryptedStorage(inner), b"whatever")
        with pytest.raises(EncryptionError, match=rf"^file 'x': {reason}"):
            storage.open("x")

    def test_a_guard_holds_for_the_files_own_partition(self, inner: InMemoryStorage) -> None:
        storage = EncryptedStorage(inner, partition=clinic_of)
        storage.save("clinic-8/x", ContentFile(b"secret"))
        with partition_guard("clinic-7"):
            storage.save("clinic-7/x", ContentFile(b"x"))
            with pytest.raises(PartitionMismatchError, match=r"^file 'clinic-8/x': partition 'clinic-8' is outside"):
                storage.open("clinic-8/x")
            with pytest.raises(PartitionMismatchError, match=r"^file 'clinic-8/y': partition 'clinic-8' is outside"):
                storage.save("clinic-8/y", ContentFile(b"x"))
        assert not inner.exists("clinic-8/y")

    def test_a_storage_that_winds_back_seals_under_the_same_partition_again(self) -> None:
        class Twice(InMemoryStorage):
            def _save(self, name: str, content: Any) -> str:
                assert b"_IK_clinic-7_" in content.read(1000)
                return super()._save(name, content)  # type: ignore[misc, no-any-return]

        storage = EncryptedStorage(Twice(), partition=clinic_of)
        assert content(storage, storage.save("clinic-7/x", ContentFile(b"secret"))) == b"secret"

    @pytest.mark.parametrize(
        "function", [clinic_of, Clinics.of, partial(clinic_of)], ids=["function", "class", "partial"]
    )
    def test_goes_into_migrations(self, function: Any) -> None:
        field = models.FileField(storage=EncryptedStorage("files", partition=function))
        text, imports = MigrationWriter.serialize(field.deconstruct()[3]["storage"])
        namespace: dict[str, Any] = {}
        exec("\n".join(imports), namespace)
        assert eval(text, namespace).partition("clinic-7/x") == "clinic-7"

    def test_refuses_what_no_migration_can_import(self) -> None:
        def inside(name: str) -> str:
            return name

        for function, name in (
            (lambda name: name, "TestPartitionOfAName.test_refuses_what_no_migration_can_import.<locals>.<lambda>"),
            (inside, "TestPartitionOfAName.test_refuses_what_no_migration_can_import.<locals>.inside"),
            (Clinics().mine, "Clinics.mine"),
        ):
            with pytest.raises(
                ValueError, match=rf"can't take tests\.test_storage\.{re.escape(name)} as its partition"
            ):
                EncryptedStorage("files", partition=function)


class TestS3:
    """django-storages' S3Storage, which uploads in parts and by threads."""

    @pytest.fixture
    def storage(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[EncryptedStorage]:
        for name, value in ACCESS.items():
            monkeypatch.setenv(name.upper(), value)
        with mock_aws():
            boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="scans")
            yield EncryptedStorage(S3Storage(bucket_name="scans", region_name="us-east-1"))

    @pytest.mark.parametrize("length", [0, 5, CHUNK_LENGTH, 20 * 1024**2 + 1])
    def test_content_comes_back_from_any_place(self, storage: EncryptedStorage, length: int) -> None:
        data = pattern(length)
        name = storage.save("a/x.pdf", ContentFile(data))
        assert sealed(storage, name).startswith(FILE_START)
        assert length < 16 or data[:16] not in sealed(storage, name)
        assert storage.size(name) == length
        assert content(storage, name) == data
        with storage.open(name) as file:
            assert file.seek(length // 2) == length // 2
            assert file.read(10) == data[length // 2 :][:10]

    def test_a_partition_for_each_name(self, storage: EncryptedStorage) -> None:
        storage = EncryptedStorage(storage.storage, partition=clinic_of)
        assert content(storage, storage.save("clinic-7/x.pdf", ContentFile(b"secret"))) == b"secret"
        with pytest.raises(EncryptionError, match=r"^file 'clinic-7/x\.pdf': the storage chose this name"):
            storage.save("./clinic-7/x.pdf", ContentFile(b"other"))
        assert content(storage, "clinic-7/x.pdf") == b"secret"

    def test_what_was_changed_in_the_bucket_is_refused(self, storage: EncryptedStorage) -> None:
        name = storage.save("x.pdf", ContentFile(b"secret"))
        put(storage, sealed(storage, name)[:-1], name)
        with pytest.raises(DecryptionError, match=r"^file 'x\.pdf': "):
            content(storage, name)


@pytest.mark.django_db
class TestFileField:
    def test_save_read_delete(self) -> None:
        row = Attachment.objects.create(file=ContentFile(b"secret", "scan.txt"))
        row = Attachment.objects.get(pk=row.pk)
        assert row.file.read() == b"secret"
        assert row.file.size == 6
        with row.file.open() as file:
            assert file.read(3) == b"sec"
        storage: Any = row.file.storage
        assert b"secret" not in sealed(storage, row.file.name)
        name = row.file.name
        row.file.delete()
        assert not storage.exists(name)


@pytest.mark.django_db
class TestUploadTo:
    def test_a_field_whose_upload_to_names_the_tenant(self, inner: InMemoryStorage, settings: Any) -> None:
        field = cast("models.FileField[Any]", Attachment._meta.get_field("file"))
        with override_field(field, storage=EncryptedStorage(inner, partition=clinic_of), upload_to=folder_of_clinic):
            rows = [Attachment.objects.create(file=ContentFile(b"secret", "scan.txt")) for _ in range(2)]
            names = [row.file.name for row in rows]
            assert names[0] == "clinic-7/scan.txt" != names[1]
            assert [Attachment.objects.get(pk=row.pk).file.read() for row in rows] == [b"secret"] * 2
            assert all(b"_IK_clinic-7_suite_tests" in inner.open(name).read() for name in names)


def folder_of_clinic(row: Attachment, filename: str) -> str:
    return f"clinic-7/{filename}"


@contextmanager
def override_field(field: Any, **changes: Any) -> Iterator[None]:
    """Give the field these attributes for the length of the block."""
    before = {name: getattr(field, name) for name in changes}
    vars(field).update(changes)
    yield
    vars(field).update(before)


@pytest.mark.django_db(transaction=True)
class TestTransactions:
    def test_no_file_outlives_its_key(self, inner: InMemoryStorage) -> None:
        storage = EncryptedStorage(inner)
        with override_settings(ASHERAH=as_asherah(METASTORE="database")):
            if connection.vendor == "sqlite":
                with (
                    transaction.atomic(),
                    pytest.raises(EncryptionError, match=r"^file 'x': .* file storage.* outlive it"),
                ):
                    storage.save("x", ContentFile(b"x"))
                assert not inner.exists("x")
                engine.get_session().encrypt(b"")
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                storage.save("x", ContentFile(b"x"))
                raise ZeroDivisionError
            engine.reset()
            assert content(storage, "x") == b"x"

    @pytest.mark.skipif(VENDOR != "sqlite", reason="only SQLite makes keys inside of the transaction")
    def test_no_file_outlives_the_key_of_its_own_partition(self, inner: InMemoryStorage) -> None:
        storage = EncryptedStorage(inner, partition=clinic_of)
        with override_settings(ASHERAH=as_asherah(METASTORE="database")):
            engine.get_session().encrypt(b"the key of another partition is committed")
            with transaction.atomic(), pytest.raises(EncryptionError, match=r"^file 'clinic-7/x': key .*_IK_clinic-7_"):
                storage.save("clinic-7/x", ContentFile(b"x"))
        assert not inner.exists("clinic-7/x")
