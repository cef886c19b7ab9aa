"""Objects in S3 are read in ranges, and never whole."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from storages.backends.s3 import S3Storage

from django_asherah.envelope.files import CHUNK_LENGTH
from django_asherah.exceptions import DecryptionError
from django_asherah.s3reader import FIRST_LENGTH, MAX_LENGTH, S3Reader, in_ranges
from django_asherah.storage import EncryptedStorage
from tests.files.conftest import Bucket
from tests.memory import peak_of

MIB = 1024**2


class FakeObject:
    """As boto3's ``Object``, over bytes that no server needs to hold."""

    def __init__(self, length: int, breaks: int = 0) -> None:
        self.content_length = length
        self.breaks = breaks
        self.asked: list[tuple[int, int]] = []
        self.parameters: dict[str, Any] = {}

    def get(self, *, Range: str, **parameters: Any) -> dict[str, Any]:
        first, last = map(int, Range.removeprefix("bytes=").split("-"))
        assert 0 <= first <= last < self.content_length
        self.asked.append((first, last - first + 1))
        self.parameters = parameters
        self.breaks -= 1
        return {"Body": Broken() if self.breaks >= 0 else io.BytesIO(bytes(last - first + 1))}


class Broken:
    def read(self) -> bytes:
        raise ConnectionResetError("while the body was read")


class TestReading:
    def test_asks_for_more_the_longer_it_goes_on(self) -> None:
        found = FakeObject(40 * MIB)
        reader = S3Reader(found, {})
        total, peak = peak_of(lambda: sum(len(reader.read(CHUNK_LENGTH)) for _ in range(40 * MIB // CHUNK_LENGTH)))
        assert (total, reader.read(1)) == (40 * MIB, b"")
        lengths = [length for _, length in found.asked]
        assert lengths[:7] == [FIRST_LENGTH << n for n in range(7)]
        assert lengths[7] == MAX_LENGTH == max(lengths)
        assert len(lengths) == 11
        assert peak < 3 * MAX_LENGTH

    def test_a_jump_asks_for_little_again(self) -> None:
        found = FakeObject(MIB)
        reader = S3Reader(found, {})
        reader.read(10)
        reader.seek(-10, io.SEEK_END)
        assert reader.read(100) == bytes(10)
        reader.seek(500_000)
        reader.read(10)
        reader.seek(10, io.SEEK_CUR)
        reader.read(10)
        assert found.asked == [(0, FIRST_LENGTH), (MIB - 10, 10), (500_000, FIRST_LENGTH)]
        reader.seek(2 * MIB)
        assert reader.read(1) == b""

    @pytest.mark.parametrize(("breaks", "attempts"), [(1, 2), (2, 3), (3, 3)])
    def test_a_connection_that_breaks_is_tried_three_times(self, breaks: int, attempts: int) -> None:
        found, pauses = FakeObject(10, breaks), []
        reader = S3Reader(found, {}, sleep=pauses.append, random=lambda: 0.5)
        if breaks < 3:
            assert reader.read(10) == bytes(10)
        else:
            with pytest.raises(ConnectionResetError):
                reader.read(10)
        assert found.asked == [(0, 10)] * attempts
        assert pauses == [0.1, 0.2][: attempts - 1]

    def test_a_key_of_the_customer_is_sent_with_each_range(self, aws: None) -> None:
        key = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}
        bucket = Bucket(object_parameters={**key, "CacheControl": "no-store"})
        storage = EncryptedStorage(bucket.storage)
        sent: list[dict[str, Any]] = []
        name = storage.save("x", ContentFile(b"secret"))
        bucket.client.meta.events.register(
            "provide-client-params.s3.GetObject", lambda params, **kwargs: sent.append(params)
        )
        assert storage.open(name).read() == b"secret"
        assert (sent[0]["SSECustomerAlgorithm"], "SSECustomerKey" in sent[0]) == ("AES256", True)
        assert "CacheControl" not in sent[0]

    def test_only_what_django_storages_itself_would_download_whole(self, bucket: Bucket, tmp_path: Any) -> None:
        class OwnFiles(S3Storage):
            def _open(self, name: str, mode: str = "rb") -> Any:
                return ContentFile(b"of its own")

        own = OwnFiles(bucket_name="scans", region_name="us-east-1")
        for storage, file in [(own, own.open("x")), (FileSystemStorage(tmp_path), ContentFile(b"x"))]:
            assert in_ranges(storage, file) is file


class TestAnObject:
    def test_of_which_the_end_is_wanted_is_not_downloaded(self, bucket: Bucket) -> None:
        storage = EncryptedStorage(bucket.storage)
        storage.save("x", ContentFile(bytes(20 * MIB) + b"the end"))
        bucket.calls.clear()
        with storage.open("x") as file:
            file.seek(-7, io.SEEK_END)
            assert file.read() == b"the end"
        assert bucket.calls == ["HeadObject", "GetObject", "GetObject"]
        assert bucket.downloaded < 4 * CHUNK_LENGTH

    def test_that_is_cut_off_is_refused_before_anything_is_read_behind_the_cut(self, bucket: Bucket) -> None:
        storage = EncryptedStorage(bucket.storage)
        storage.save("x", ContentFile(bytes(MIB)))
        data = bucket.client.get_object(Bucket="scans", Key="x")["Body"].read()
        bucket.client.put_object(Bucket="scans", Key="x", Body=data[:-CHUNK_LENGTH])
        with storage.open("x") as file:
            assert file.read(CHUNK_LENGTH) == bytes(CHUNK_LENGTH)
            with pytest.raises(DecryptionError, match=r"^file 'x': "):
                file.seek(0, io.SEEK_END)
