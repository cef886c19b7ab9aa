"""Write ``tests/vectors/django_asherah_vectors.json``: records that this project wrote, for other implementations.

Every key and nonce comes from SHA-256 of a counter, and the clock stands still, so the file comes out the same each
time. None of it is fit for anything but tests. It is published: records may be added to it, but never changed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from django_asherah.envelope.compact import encode_compact
from django_asherah.envelope.records import decode_row, encode_key
from django_asherah.envelope.session import SessionFactory
from django_asherah.kms.static import StaticKMS
from django_asherah.metastores.memory import MemoryMetastore

TARGET = Path(__file__).resolve().parent.parent / "tests" / "vectors" / "django_asherah_vectors.json"
STATIC_KEY = b"thisIsAStaticMasterKeyForTesting"
NOW = 1_795_500_000
PAYLOADS = {
    "empty": b"",
    "one zero byte": b"\0",
    "ascii": b"mysupersecretpayload",
    "unicode": "héllo wörld — 日本語 🔐".encode(),
    "json": b'{"a":[1,null,true]}',
    "100 bytes": bytes(range(100)),
    "all bytes": bytes(range(256)),
}
PARTITIONS = ["default", "tenant-7", "tenant_7", "two words", "Ünïcode-päртиция", 'quote"back\\slash']


class Counted:
    """Random bytes that are not random at all."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, length: int) -> bytes:
        """Return the next ``length`` bytes."""
        blob = b""
        while len(blob) < length:
            self._count += 1
            blob += hashlib.sha256(self._count.to_bytes(8)).digest()
        return blob[:length]


def build() -> dict[str, Any]:
    """Return the whole file."""
    metastore, random = MemoryMetastore(), Counted()
    kms = StaticKMS(STATIC_KEY, random)
    factory = SessionFactory("svc", "prod", metastore, kms, clock=lambda: float(NOW), random=random)
    records = [
        _record(factory, partition, name, payload)
        for partition in PARTITIONS
        for name, payload in PAYLOADS.items()
        if partition == "default" or name in ("ascii", "empty")
    ]
    return {
        "how": "scripts/make_vectors.py of django-asherah: service 'svc', product 'prod', static KMS, fixed randomness",
        "static_key_hex": STATIC_KEY.hex(),
        "service": "svc",
        "product": "prod",
        "key_rows": [
            {"id": meta.key_id, "created": meta.created, "key_record": encode_key(record)}
            for meta, record in metastore.records.items()
        ],
        "records": records,
        "refused": _refused(records[1]["drr"], factory.get_session("tenant-7").encrypt(b"x")),
    }


def _record(factory: SessionFactory, partition: str, name: str, payload: bytes) -> dict[str, Any]:
    text = factory.get_session(partition).encrypt(payload)
    return {
        "partition": partition,
        "case": name,
        "plaintext": base64.b64encode(payload).decode(),
        "drr": text,
        "compact": base64.b64encode(encode_compact(decode_row(text))).decode(),
    }


def _refused(good: str, foreign: str) -> list[dict[str, str]]:
    """Return records that must not open in partition ``default``, and with which error."""
    document = json.loads(good)

    def changed(**members: Any) -> str:
        key = {**document["Key"], **{name: value for name, value in members.items() if name != "Data"}}
        return json.dumps({"Key": key, "Data": members.get("Data", document["Data"])}, separators=(",", ":"))

    def flipped(text: str) -> str:
        blob = bytearray(base64.b64decode(text))
        blob[0] ^= 1
        return base64.b64encode(blob).decode()

    meta = document["Key"]["ParentKeyMeta"]
    cases = {
        "another partition's record": (foreign, "PartitionMismatchError"),
        "a flipped bit in the payload": (changed(Data=flipped(document["Data"])), "DecryptionError"),
        "a flipped bit in the data row key": (changed(Key=flipped(document["Key"]["Key"])), "DecryptionError"),
        "a key that does not exist": (changed(ParentKeyMeta={**meta, "Created": 60}), "KeyNotFoundError"),
        "truncated": (good[:-1], "InvalidRecordError"),
        "trailing text": (good + "x", "InvalidRecordError"),
        "no padding": (changed(Data=document["Data"].rstrip("=")), "InvalidRecordError"),
        "URL-safe base64": (changed(Data="-_" + document["Data"][2:]), "InvalidRecordError"),
        "time as text": (changed(Created="1"), "InvalidRecordError"),
        "time as a float": (changed(Created=1.5), "InvalidRecordError"),
        "no parent": (changed(ParentKeyMeta=None), "InvalidRecordError"),
        "a payload shorter than a tag and a nonce": (changed(Data="AAAA"), "InvalidRecordError"),
        "plain text": ("mysupersecretpayload", "InvalidRecordError"),
        "nothing": ("", "InvalidRecordError"),
    }
    return [{"case": name, "drr": text, "error": error} for name, (text, error) in cases.items()]


if __name__ == "__main__":
    TARGET.write_text(json.dumps(build(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
