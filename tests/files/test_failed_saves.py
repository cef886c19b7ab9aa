"""A save that fails leaves no part of its file, and every other file as it is."""

from __future__ import annotations

import errno
import io
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage, InMemoryStorage

from django_asherah.envelope.files import CHUNK_LENGTH
from django_asherah.exceptions import KMSError, MetastoreError
from django_asherah.metastores.memory import MemoryMetastore
from django_asherah.storage import EncryptedStorage
from tests.databases import as_asherah
from tests.files.conftest import Bucket


class Failing(File):  # type: ignore[type-arg]
    """Content that breaks after so many bytes, as an upload whose client goes away."""

    def __init__(self, after: int, error: BaseException | None = None, meanwhile: Callable[[], Any] = bool) -> None:
        super().__init__(io.BytesIO(), "x")
        self.after = after
        self.error = error or ConnectionResetError("the client is gone")
        self.meanwhile = meanwhile

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        yield bytes(self.after)
        self.meanwhile()
        raise self.error


def listed(path: Path) -> dict[str, int]:
    """Return all files below, with their lengths."""
    return {str(file.relative_to(path)): file.stat().st_size for file in path.rglob("*") if file.is_file()}


@contextmanager
def disk_that_holds(length: int) -> Iterator[None]:
    """Let no file of this process grow longer, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (length, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


AFTER = [0, 1, CHUNK_LENGTH, CHUNK_LENGTH + 1, 10 * CHUNK_LENGTH]


class TestInAFolder:
    @pytest.fixture
    def storage(self, tmp_path: Path) -> EncryptedStorage:
        return EncryptedStorage(FileSystemStorage(tmp_path))

    @pytest.mark.parametrize("after", AFTER)
    @pytest.mark.parametrize("error", [ConnectionResetError, KeyboardInterrupt])
    def test_content_that_breaks_off(
        self, storage: EncryptedStorage, tmp_path: Path, after: int, error: type[BaseException]
    ) -> None:
        with pytest.raises(error, match="gone"):
            storage.save("a/x.pdf", Failing(after, error("gone")))
        assert listed(tmp_path) == {}

    @pytest.mark.parametrize("after", AFTER)
    def test_content_that_breaks_off_when_the_name_is_taken(
        self, storage: EncryptedStorage, tmp_path: Path, after: int
    ) -> None:
        storage.save("x.tar.gz", ContentFile(b"theirs"))
        before = listed(tmp_path)
        with pytest.raises(ConnectionResetError):
            storage.save("x.tar.gz", Failing(after))
        assert listed(tmp_path) == before
        assert storage.open("x.tar.gz").read() == b"theirs"

    def test_two_saves_of_one_name_that_both_break_off(self, storage: EncryptedStorage, tmp_path: Path) -> None:
        both_write = threading.Barrier(2, timeout=30)
        errors = []

        def save() -> None:
            try:
                storage.save("x.tar.gz", Failing(10 * CHUNK_LENGTH, meanwhile=both_write.wait))
            except ConnectionResetError as exc:
                errors.append(exc)

        threads = [threading.Thread(target=save) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(errors), listed(tmp_path)) == (2, {})

    def test_one_that_takes_the_name_at_the_last_moment_keeps_its_file(self, tmp_path: Path) -> None:
        other = EncryptedStorage(FileSystemStorage(tmp_path))

        class Slow(FileSystemStorage):
            def _save(self, name: str, content: Any) -> str:
                if not self.exists(name):
                    other.save(name, ContentFile(b"theirs"))
                return super()._save(name, content)  # type: ignore[misc, no-any-return]

        with pytest.raises(ConnectionResetError):
            EncryptedStorage(Slow(tmp_path)).save("x.tar.gz", Failing(10 * CHUNK_LENGTH))
        assert list(listed(tmp_path)) == ["x.tar.gz"]
        assert other.open("x.tar.gz").read() == b"theirs"

    @pytest.mark.parametrize("room", [0, 10, 300, CHUNK_LENGTH, 3 * CHUNK_LENGTH])
    def test_a_disk_that_is_full(self, storage: EncryptedStorage, tmp_path: Path, room: int) -> None:
        with pytest.raises(OSError) as caught, disk_that_holds(room):  # noqa: PT011
            storage.save("x", ContentFile(bytes(10 * CHUNK_LENGTH)))
        assert caught.value.errno == errno.EFBIG
        assert listed(tmp_path) == {}

    @pytest.mark.parametrize("room", [0, 300, 3 * CHUNK_LENGTH])
    def test_a_full_disk_when_another_one_has_just_taken_the_name(self, tmp_path: Path, room: int) -> None:
        class Slow(FileSystemStorage):
            def _save(self, name: str, content: Any) -> str:
                if not self.exists(name):
                    (tmp_path / name).touch()  # It will write on.
                return super()._save(name, content)  # type: ignore[misc, no-any-return]

        with pytest.raises(OSError), disk_that_holds(room):  # noqa: PT011
            EncryptedStorage(Slow(tmp_path)).save("x", ContentFile(bytes(10 * CHUNK_LENGTH)))
        assert listed(tmp_path)["x"] == 0

    def test_a_storage_that_cleans_up_itself_leaves_nothing_that_could_be_ours(self, tmp_path: Path) -> None:
        class Whole(FileSystemStorage):
            """Puts a file in its place when it is whole."""

            def _save(self, name: str, content: Any) -> str:
                return super()._save(name, ContentFile(content.read()))  # type: ignore[misc, no-any-return]

        (tmp_path / "x_2Yb7Kq0.pdf").touch()  # Another save has just begun it.
        with pytest.raises(ConnectionResetError):
            EncryptedStorage(Whole(tmp_path)).save("x.pdf", Failing(10 * CHUNK_LENGTH))
        assert listed(tmp_path) == {"x_2Yb7Kq0.pdf": 0}

    def test_a_name_or_a_folder_that_is_refused(self, storage: EncryptedStorage, tmp_path: Path) -> None:
        storage.save("file", ContentFile(b"theirs"))
        before = listed(tmp_path)
        with pytest.raises(FileExistsError, match="not a directory"):
            storage.save("file/x", ContentFile(b"x"))
        with pytest.raises(SuspiciousFileOperation):
            storage.save("../x", ContentFile(b"x"))
        assert listed(tmp_path) == before

    def test_a_storage_that_fails_after_it_has_written(self, tmp_path: Path) -> None:
        class Outside(FileSystemStorage):
            def _save(self, name: str, content: Any) -> str:
                return "/" + super()._save(name, content)  # type: ignore[misc]

        with pytest.raises(SuspiciousFileOperation):
            EncryptedStorage(Outside(tmp_path)).save("x", ContentFile(b"x"))
        assert listed(tmp_path) == {}

    def test_a_file_that_can_not_be_looked_for_is_named(self, tmp_path: Path) -> None:
        class Gone(FileSystemStorage):
            def _open(self, name: str, mode: str = "rb") -> Any:
                raise PermissionError("no")

        with pytest.raises(ConnectionResetError) as caught:
            EncryptedStorage(Gone(tmp_path)).save("x", Failing(10 * CHUNK_LENGTH))
        assert caught.value.__notes__ == [
            "A part of file 'x' may be left, as it could not be looked for: PermissionError('no')"
        ]


class TestWithOverwriting:
    @pytest.fixture
    def storage(self, tmp_path: Path) -> EncryptedStorage:
        return EncryptedStorage(FileSystemStorage(tmp_path, allow_overwrite=True))

    def test_what_breaks_off_before_anything_is_written_leaves_the_old_file(self, storage: EncryptedStorage) -> None:
        storage.save("x", ContentFile(b"old"))
        for after in (0, 1, CHUNK_LENGTH):
            with pytest.raises(ConnectionResetError):
                storage.save("x", Failing(after))
            assert storage.open("x").read() == b"old"

    def test_what_breaks_off_later_leaves_no_part_of_the_new_one(
        self, storage: EncryptedStorage, tmp_path: Path
    ) -> None:
        storage.save("x", ContentFile(b"old"))
        with pytest.raises(ConnectionResetError):
            storage.save("x", Failing(10 * CHUNK_LENGTH))
        assert listed(tmp_path) == {}

    def test_a_full_disk(self, storage: EncryptedStorage, tmp_path: Path) -> None:
        for room in (0, 300, 3 * CHUNK_LENGTH):
            with pytest.raises(OSError), disk_that_holds(room):  # noqa: PT011
                storage.save("x", ContentFile(bytes(10 * CHUNK_LENGTH)))
            assert listed(tmp_path) == {}


class BrokenKMS:
    def __init__(self, settings: Any) -> None:
        pass

    def encrypt_key(self, key: bytes | bytearray) -> bytes:
        raise KMSError("no region answers")

    def decrypt_key(self, wrapped: bytes) -> bytearray:
        raise KMSError("no region answers")


class BrokenMetastore(MemoryMetastore):
    def __init__(self, settings: Any) -> None:
        super().__init__()

    def load_latest(self, key_id: str) -> Any:
        raise MetastoreError("gone")


class TestKeys:
    @pytest.mark.parametrize("make", [FileSystemStorage, InMemoryStorage])
    @pytest.mark.parametrize(
        ("broken", "error"),
        [
            ({"METASTORE": "memory", "KMS": f"{__name__}.BrokenKMS"}, KMSError),
            ({"METASTORE": f"{__name__}.BrokenMetastore"}, MetastoreError),
        ],
        ids=["kms", "metastore"],
    )
    def test_that_are_unavailable_leave_nothing_and_replace_nothing(
        self, settings: Any, tmp_path: Path, make: type[Any], broken: dict[str, Any], error: type[Exception]
    ) -> None:
        class Overwriting(make):  # type: ignore[misc]
            """What many have written for themselves: it deletes the old file when it is asked for a name."""

            def get_available_name(self, name: str, max_length: int | None = None) -> str:
                self.delete(name)
                return name

        inner = Overwriting(location=tmp_path)
        inner.save("x", ContentFile(b"old"))
        settings.ASHERAH = as_asherah(**broken)
        with pytest.raises(error, match=r"^file 'x': "):
            EncryptedStorage(inner).save("x", ContentFile(b"new"))
        with pytest.raises(error, match=r"^file 'y': "):
            EncryptedStorage(inner).save("y", ContentFile(b"new"))
        with inner.open("x") as file:
            assert file.read() == b"old"
        assert inner.listdir("")[1] == ["x"]


class TestInMemory:
    @pytest.mark.parametrize("after", AFTER)
    def test_content_that_breaks_off(self, after: int) -> None:
        inner = InMemoryStorage()
        with pytest.raises(ConnectionResetError):
            EncryptedStorage(inner).save("x", Failing(after))
        assert inner.listdir("")[1] == []


class TestS3:
    @pytest.mark.parametrize("after", [0, 10 * CHUNK_LENGTH, 20 * 1024**2])
    def test_content_that_breaks_off_leaves_no_object_no_upload_and_the_old_object(
        self, bucket: Bucket, after: int
    ) -> None:
        storage = EncryptedStorage(bucket.storage)
        with pytest.raises(ConnectionResetError):
            storage.save("x", Failing(after))
        assert bucket.names() == []
        storage.save("x", ContentFile(b"old"))
        with pytest.raises(ConnectionResetError):
            storage.save("x", Failing(after))
        assert storage.open("x").read() == b"old"
        assert "Uploads" not in bucket.client.list_multipart_uploads(Bucket="scans")
