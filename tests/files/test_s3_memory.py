"""What S3 takes of memory, with django-storages and boto3 as they are, and no server, which would hold the objects."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.awsrequest import AWSResponse
from django.core.files.base import File
from django.core.files.storage import FileSystemStorage

from django_asherah.envelope.files import CHUNK_LENGTH
from django_asherah.storage import EncryptedStorage
from tests.files.conftest import Bucket
from tests.memory import peak_of
from tests.moto_servers import ACCESS

MIB = 1024**2


class Streamed(io.BytesIO):
    def stream(self) -> Iterator[bytes]:
        yield self.read()


class Wire:
    """Answers requests of boto's for one object from a file of the disk, as moto would hold it in memory."""

    def __init__(self, client: Any, path: Path) -> None:
        self.path = path
        self.received = 0
        client.meta.events.register("before-send.s3", self._answer)

    def _answer(self, request: Any, **kwargs: Any) -> AWSResponse:
        length = self.path.stat().st_size
        headers, body = {"ETag": '"x"'}, Streamed()
        if request.method == "HEAD":
            headers["Content-Length"] = str(length)
        elif request.method == "GET":
            first, last = map(int, request.headers["Range"].decode().removeprefix("bytes=").split("-"))
            with self.path.open("rb") as file:
                file.seek(first)
                body = Streamed(file.read(last - first + 1))
            headers["Content-Length"] = str(last - first + 1)
        elif request.method == "PUT":
            self.received += sum(map(len, iter(lambda: request.body.read(MIB), b"")))
        elif "uploadId" in request.url:
            body = Streamed(b"<CompleteMultipartUploadResult/>")
        else:
            body = Streamed(b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>")
        return AWSResponse(request.url, 200, headers, body)


class Zeros(File):  # type: ignore[type-arg]
    def __init__(self, length: int) -> None:
        super().__init__(io.BytesIO(), "x")
        self.length = length

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        yield from itertools.repeat(bytes(CHUNK_LENGTH), self.length // CHUNK_LENGTH)


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ACCESS.items():
        monkeypatch.setenv(name.upper(), value)


def test_reading_is_bounded_with_the_defaults(tmp_path: Path) -> None:
    EncryptedStorage(FileSystemStorage(tmp_path)).save("x", Zeros(64 * MIB))
    bucket = Bucket()
    storage = EncryptedStorage(bucket.storage)
    Wire(bucket.client, tmp_path / "x")

    def read() -> int:
        with storage.open("x") as file:
            return sum(len(chunk) for chunk in file.chunks())

    length, peak = peak_of(read)
    assert length == 64 * MIB
    assert peak < 32 * MIB


def test_writing_is_bounded_by_the_setting_that_the_page_names() -> None:
    bucket = Bucket(transfer_config=TransferConfig(max_concurrency=2, use_threads=False))
    storage = EncryptedStorage(bucket.storage)
    wire = Wire(bucket.client, Path("/dev/null"))
    _, peak = peak_of(lambda: storage.save("x", Zeros(64 * MIB)))
    assert wire.received > 64 * MIB
    assert peak < 32 * MIB
