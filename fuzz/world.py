"""An engine whose keys and records are all known, so that a target can tell a wrong plaintext from a right one."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from django_asherah.envelope.aead import Cipher
from django_asherah.envelope.records import KeyMeta, decode_key
from django_asherah.envelope.session import SessionFactory
from django_asherah.kms.aws import AwsKMS
from django_asherah.kms.kek import RegionKek, WrappedSystemKey, encode_wrapped
from django_asherah.kms.static import StaticKMS
from django_asherah.metastores.memory import MemoryMetastore

_FILE = Path(__file__).resolve().parent.parent / "tests" / "vectors" / "django_asherah_vectors.json"
VECTORS: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
PARTITION = "default"
KEY_ID = "_IK_default_svc_prod"
SYSTEM_KEY = hashlib.sha256(b"a system key").digest()
KEK = hashlib.sha256(b"a KEK").digest()
REGIONS = {region: f"arn:aws:kms:{region}:111122223333:key/fuzz" for region in ("us-west-2", "us-east-1")}


def now() -> float:
    """Return the time at which the vectors' keys are new."""
    return float(VECTORS["key_rows"][0]["created"])


def make_metastore(settings: Any = None) -> MemoryMetastore:
    """Return a metastore that holds the vectors' keys; ``ASHERAH["METASTORE"]`` may name it."""
    metastore = MemoryMetastore()
    for row in VECTORS["key_rows"]:
        metastore.records[KeyMeta(row["id"], row["created"])] = decode_key(row["key_record"])
    return metastore


def make_factory(metastore: MemoryMetastore | None = None) -> SessionFactory:
    """Return an engine over the vectors' keys."""
    kms = StaticKMS(bytes.fromhex(VECTORS["static_key_hex"]))
    return SessionFactory("svc", "prod", metastore or make_metastore(), kms, clock=now)


ASHERAH = {
    "SERVICE": "svc",
    "PRODUCT": "prod",
    "KMS": "static",
    "KMS_OPTIONS": {"key": VECTORS["static_key_hex"]},
    "METASTORE": "fuzz.world.make_metastore",
}
"""The same engine as Django settings."""


def records() -> dict[str, bytes]:
    """Return every record of :data:`PARTITION` in the vectors, with its plaintext."""
    return {item["drr"]: base64.b64decode(item["plaintext"]) for item in _of_partition()}


def compact_records() -> dict[bytes, bytes]:
    """Return the same records in the compact format."""
    return {base64.b64decode(item["compact"]): base64.b64decode(item["plaintext"]) for item in _of_partition()}


def _of_partition() -> list[dict[str, str]]:
    return [item for item in VECTORS["records"] if item["partition"] == PARTITION]


def wrapped_key() -> bytes:
    """Return :data:`SYSTEM_KEY` as the AWS KMS of :func:`make_aws` wraps it."""
    keks = [RegionKek(region, arn, f"the KEK in {region}".encode()) for region, arn in REGIONS.items()]
    return encode_wrapped(WrappedSystemKey(Cipher(KEK, _counted).seal(SYSTEM_KEY), keks))


def _counted(length: int) -> bytes:
    return bytes(range(length))


class _Client:
    """One region's KMS, which decrypts exactly one blob."""

    def __init__(self, region: str) -> None:
        self._region = region

    def decrypt(self, KeyId: str, CiphertextBlob: bytes) -> dict[str, bytes]:  # noqa: N803 - boto3's names
        """Return the KEK."""
        if (KeyId, CiphertextBlob) != (REGIONS[self._region], f"the KEK in {self._region}".encode()):
            raise ValueError("InvalidCiphertextException")
        return {"Plaintext": KEK}


class _Session:
    def client(self, service: str, region_name: str, **options: Any) -> _Client:
        """Return the client of a region."""
        return _Client(region_name)


def make_aws() -> AwsKMS:
    """Return an AWS KMS over regions that decrypt nothing but their own copy of :data:`KEK`."""
    return AwsKMS(REGIONS, "us-west-2", session=_Session())
