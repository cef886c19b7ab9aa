"""Storages that are counted, and buckets in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from django.core.files.storage import Storage
from moto import mock_aws
from storages.backends.s3 import S3Storage

from tests.databases import as_asherah
from tests.moto_servers import ACCESS


@pytest.fixture(autouse=True)
def _keys_in_memory(settings: Any) -> None:
    settings.ASHERAH = as_asherah(METASTORE="memory")


class Bucket:
    """What S3 is asked for, through django-storages as it is by default."""

    def __init__(self, **options: Any) -> None:
        self.storage = S3Storage(bucket_name="scans", region_name="us-east-1", **options)
        self.client = self.storage.connection.meta.client
        self.calls: list[str] = []
        self.downloaded = 0
        self.client.meta.events.register("before-call.s3", self._record)
        self.client.meta.events.register("after-call.s3.GetObject", self._count)

    def _record(self, model: Any, **kwargs: Any) -> None:
        self.calls.append(model.name)

    def _count(self, parsed: Any, **kwargs: Any) -> None:
        self.downloaded += parsed.get("ContentLength", 0)

    def names(self) -> list[str]:
        return [entry["Key"] for entry in self.client.list_objects_v2(Bucket="scans").get("Contents", [])]


@pytest.fixture(scope="module")
def aws() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name, value in ACCESS.items():
            patch.setenv(name.upper(), value)
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="scans")
        yield


@pytest.fixture(scope="module")
def one_bucket(aws: None) -> Bucket:
    return Bucket()  # Each client takes boto3 some time.


@pytest.fixture
def bucket(one_bucket: Bucket) -> Bucket:
    for name in one_bucket.names():
        one_bucket.storage.delete(name)
    one_bucket.calls.clear()
    one_bucket.downloaded = 0
    return one_bucket


class WholeFiles(Storage):
    """A remote storage whose files can be read only whole, as those of Google Cloud Storage and Azure are."""

    def __init__(self, storage: Storage) -> None:
        self.under = storage
        self.opened = 0
        self.sized = 0

    def _open(self, name: str, mode: str = "rb") -> Any:
        self.opened += 1
        return self.under.open(name, mode)

    def _save(self, name: str, content: Any) -> str:
        return self.under.save(name, content)

    def size(self, name: str) -> int:
        self.sized += 1
        return self.under.size(name)

    def exists(self, name: str) -> bool:
        return self.under.exists(name)

    def delete(self, name: str) -> None:
        self.under.delete(name)
