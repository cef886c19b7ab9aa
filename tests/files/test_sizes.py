"""A file's size is that of its content, and costs no download."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, InMemoryStorage, Storage
from hypothesis import given
from hypothesis import strategies as st

from django_asherah.envelope.files import CHUNK_LENGTH
from django_asherah.exceptions import EncryptionError, InvalidRecordError, PartitionMismatchError
from django_asherah.guard import partition_guard
from django_asherah.storage import EncryptedStorage
from tests.databases import as_asherah
from tests.files.conftest import Bucket, WholeFiles

EDGES = [0, 1, CHUNK_LENGTH - 1, CHUNK_LENGTH, CHUNK_LENGTH + 1, 2 * CHUNK_LENGTH, 2 * CHUNK_LENGTH + 1]
PARTITIONS = ["default", "Zoë", 'a"b', "a\\b", "a\tb\x01", "日本 🗝", "\x7f\u2028", "</script>"]


def partition_of(name: str) -> str:
    return name.partition("/")[0]


class TestS3:
    @pytest.mark.parametrize("length", EDGES)
    def test_is_the_contents_and_downloads_no_more_than_the_beginning(self, bucket: Bucket, length: int) -> None:
        storage = EncryptedStorage(bucket.storage)
        name = storage.save("x.pdf", ContentFile(bytes(length)))
        bucket.calls.clear()
        assert storage.size(name) == length
        assert bucket.calls == ["HeadObject", "GetObject"]
        assert bucket.downloaded <= 2 * CHUNK_LENGTH

    def test_of_a_large_file_costs_what_that_of_a_small_one_does(self, bucket: Bucket) -> None:
        storage = EncryptedStorage(bucket.storage)
        storage.save("large", ContentFile(bytes(20 * 1024**2)))
        bucket.calls.clear()
        assert storage.size("large") == 20 * 1024**2
        assert bucket.calls == ["HeadObject", "GetObject"]
        assert bucket.downloaded == 2 * CHUNK_LENGTH

    def test_what_is_no_encrypted_file_has_none(self, bucket: Bucket) -> None:
        storage = EncryptedStorage(bucket.storage)
        for data in (b"", b"plain" * 1000):
            bucket.storage.save("plain", ContentFile(data))
            with pytest.raises(InvalidRecordError, match=r"^file 'plain': not an encrypted file"):
                storage.size("plain")
        with pytest.raises(FileNotFoundError):
            storage.size("missing")

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # It leaves its own file open.
    def test_of_an_object_that_django_storages_has_compressed_is_right_too(self, aws: None) -> None:
        bucket = Bucket(gzip=True)
        storage = EncryptedStorage(bucket.storage)
        name = storage.save("x.js", ContentFile(bytes(CHUNK_LENGTH + 5)))
        assert gzip.decompress(bucket.client.get_object(Bucket="scans", Key=name)["Body"].read()).startswith(b"ASHERAH")
        assert storage.size(name) == CHUNK_LENGTH + 5
        with storage.open(name) as file:
            assert file.read() == bytes(CHUNK_LENGTH + 5)


class TestAStorageThatReadsWholeFiles:
    @given(
        length=st.sampled_from(EDGES) | st.integers(0, 3 * CHUNK_LENGTH),
        partition=st.sampled_from(PARTITIONS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    )
    def test_is_not_opened_and_the_size_is_the_contents(self, length: int, partition: str) -> None:
        remote = WholeFiles(InMemoryStorage())
        storage = EncryptedStorage(remote, partition=(partition.replace("\0", "") or "x"))
        name = storage.save("x", ContentFile(bytes(length)))
        assert (storage.size(name), remote.sized, remote.opened) == (length, 1, 0)

    @pytest.mark.parametrize("suffix", ["", "us-west-2"])
    def test_nor_with_a_partition_for_each_name(self, settings: Any, suffix: str) -> None:
        settings.ASHERAH = as_asherah(METASTORE="memory", KEY_SUFFIX=suffix)
        remote = WholeFiles(InMemoryStorage())
        storage = EncryptedStorage(remote, partition=partition_of)
        for partition in ("Zoë", 'a"b', "日本 🗝"):
            remote.under.save(f"{partition}/x", _sealed(partition))
            assert storage.size(f"{partition}/x") == 5
        assert remote.opened == 0

    def test_what_is_too_short_for_an_encrypted_file_has_none(self) -> None:
        remote = WholeFiles(InMemoryStorage())
        remote.under.save("plain", ContentFile(b"plain"))
        with pytest.raises(InvalidRecordError, match=r"^file 'plain': not a whole encrypted file"):
            EncryptedStorage(remote).size("plain")


def _sealed(partition: str) -> ContentFile[bytes]:
    storage = EncryptedStorage(InMemoryStorage(), partition=partition)
    with storage.storage.open(storage.save("x", ContentFile(b"hello"))) as file:
        return ContentFile(file.read())


@pytest.fixture(params=[FileSystemStorage, InMemoryStorage, "whole files"])
def any_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "whole files":
        return WholeFiles(InMemoryStorage())
    made: Storage = request.param(location=tmp_path)
    return made


class TestAnyStorage:
    def test_is_what_can_be_read(self, any_storage: Storage) -> None:
        storage = EncryptedStorage(any_storage)
        for length in EDGES:
            name = storage.save("x", ContentFile(bytes(length)))
            with storage.open(name) as file:
                assert storage.size(name) == file.seek(0, io.SEEK_END) == length

    def test_a_guard_holds(self, any_storage: Storage) -> None:
        storage = EncryptedStorage(any_storage, partition=partition_of)
        name = storage.save("clinic-8/x", ContentFile(b"x"))
        with (
            partition_guard("clinic-7"),
            pytest.raises(PartitionMismatchError, match=r"^file 'clinic-8/x': partition 'clinic-8' is outside"),
        ):
            storage.size(name)

    def test_a_name_without_a_partition_is_an_error(self, any_storage: Storage) -> None:
        storage = EncryptedStorage(any_storage, partition=partition_of)
        with pytest.raises(EncryptionError, match=r"^file '/x': a partition must not be empty"):
            storage.size("/x")
