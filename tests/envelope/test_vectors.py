"""Records that the official SDKs wrote open here, and are written here byte for byte the same."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from django_asherah.envelope.records import KeyMeta, decode_key, decode_row, encode_row
from django_asherah.envelope.session import SessionFactory
from django_asherah.kms.aws import AwsKMS
from django_asherah.kms.static import StaticKMS
from django_asherah.metastores.memory import MemoryMetastore

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "official_sdk_vectors.json").read_text(encoding="utf-8")
)


class RegionalKMS:
    """Decrypts exactly the KEKs that a vector lists for one region."""

    def __init__(self, region: str, keks: dict[bytes, bytes]) -> None:
        self._region = region
        self._keks = keks

    def decrypt(self, KeyId: str, CiphertextBlob: bytes) -> dict[str, bytes]:
        return {"Plaintext": self._keks[CiphertextBlob]}


def make_kms(vector: dict[str, Any], only_region: str | None = None) -> Any:
    if vector["kms"] == "static":
        return StaticKMS(bytes.fromhex(vector["static_key_hex"]))
    regions, keks = aws_regions(vector)

    class Session:
        def client(self, service: str, region_name: str, **options: Any) -> RegionalKMS:
            available = only_region in (None, region_name)
            return RegionalKMS(region_name, keks[region_name] if available else {})

    return AwsKMS(regions, next(iter(regions)), session=Session())


def aws_regions(vector: dict[str, Any]) -> tuple[dict[str, str], dict[str, dict[bytes, bytes]]]:
    regions: dict[str, str] = {}
    keks: dict[str, dict[bytes, bytes]] = {}
    for row in vector["key_rows"]:
        if row["id"].startswith("_SK_"):
            wrapped = json.loads(base64.b64decode(record_of(row)["Key"]))
            plain = row.get("kek_plaintext_by_region") or vector["kek_plaintext_by_region"]
            for kek in wrapped["kmsKeks"]:
                regions[kek["region"]] = kek["arn"]
                secret = base64.b64decode(plain[kek["region"]])
                keks.setdefault(kek["region"], {})[base64.b64decode(kek["encryptedKek"])] = secret
    return regions, keks


def record_of(row: dict[str, Any]) -> dict[str, Any]:
    record = row["key_record"]
    loaded: dict[str, Any] = json.loads(record) if isinstance(record, str) else record
    return loaded


def make_factory(vector: dict[str, Any], only_region: str | None = None) -> SessionFactory:
    metastore = MemoryMetastore()
    for row in vector["key_rows"]:
        if row["id"].startswith(("_SK_", "_IK_")):
            record = decode_key(json.dumps(record_of(row)))
            metastore.records[KeyMeta(row["id"], record.created)] = record
    return SessionFactory(
        vector["service"],
        vector["product"],
        metastore,
        make_kms(vector, only_region),
        key_suffix=vector.get("region_suffix") or "",
    )


def check(vector: dict[str, Any], factory: SessionFactory) -> None:
    for record in vector["records"]:
        plaintext = factory.get_session(record["partition"]).decrypt(record["drr"])
        assert len(plaintext) == record["plaintext_len"]
        assert hashlib.sha256(plaintext).hexdigest() == record["plaintext_sha256"]


def test_there_are_vectors_of_both_kms_and_of_both_cores() -> None:
    assert {vector["kms"] for vector in VECTORS} == {"static", "aws"}
    assert sum(len(vector["records"]) for vector in VECTORS) >= 30


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_every_record_opens(vector: dict[str, Any]) -> None:
    check(vector, make_factory(vector))


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["kms"] == "aws"], ids=lambda vector: vector["name"])
def test_each_region_alone_opens_every_record(vector: dict[str, Any]) -> None:
    for region in aws_regions(vector)[0]:
        check(vector, make_factory(vector, only_region=region))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_every_record_is_written_again_byte_for_byte(vector: dict[str, Any]) -> None:
    for record in vector["records"]:
        assert encode_row(decode_row(record["drr"])) == record["drr"]
