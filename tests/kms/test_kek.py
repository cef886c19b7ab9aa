"""The JSON of a wrapped system key: its exact bounds."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from django_asherah.exceptions import InvalidRecordError
from django_asherah.kms.kek import RegionKek, WrappedSystemKey, decode_wrapped, encode_wrapped


def text(keks: list[dict[str, Any]]) -> bytes:
    return json.dumps({"encryptedKey": base64.b64encode(bytes(60)).decode(), "kmsKeks": keks}).encode()


def kek(region: str = "r", arn: str = "a", blob: bytes = b"x") -> dict[str, Any]:
    return {"region": region, "arn": arn, "encryptedKek": base64.b64encode(blob).decode()}


@pytest.mark.parametrize(
    "given",
    [
        [],
        [kek()],
        [kek(region="r" * 2048, arn="a" * 2048)],
        [kek(blob=bytes(6144))],
        [kek()] * 100,
    ],
    ids=["no region", "shortest", "longest names", "longest blob", "most regions"],
)
def test_what_is_within_the_bounds_is_read(given: list[dict[str, Any]]) -> None:
    read = decode_wrapped(text(given))
    assert [(each.region, each.arn, len(each.encrypted_kek)) for each in read.kms_keks] == [
        (each["region"], each["arn"], len(base64.b64decode(each["encryptedKek"]))) for each in given
    ]


@pytest.mark.parametrize(
    "given",
    [
        [kek(region="")],
        [kek(arn="")],
        [kek(region="r" * 2049)],
        [kek(arn="a" * 2049)],
        [kek(blob=b"")],
        [kek(blob=bytes(6145))],
        [kek()] * 101,
    ],
    ids=["no name", "no ARN", "long name", "long ARN", "no blob", "long blob", "many regions"],
)
def test_what_is_over_a_bound_is_refused(given: list[dict[str, Any]]) -> None:
    with pytest.raises(InvalidRecordError, match="not a system key wrapped by AWS KMS"):
        decode_wrapped(text(given))


def test_what_the_sdks_would_refuse_is_not_written() -> None:
    keks = [RegionKek(f"r{number}", "a", bytes(6144)) for number in range(2)]
    with pytest.raises(InvalidRecordError, match="for 2 regions takes 16583 bytes, over the SDKs' limit of 16384"):
        encode_wrapped(WrappedSystemKey(bytes(60), keks))


def test_what_the_sdks_just_take_is_written() -> None:
    assert len(encode_wrapped(WrappedSystemKey(bytes(60), _padded(16384)))) == 16384
    with pytest.raises(InvalidRecordError, match="takes 16385 bytes"):
        encode_wrapped(WrappedSystemKey(bytes(60), _padded(16385)))


def _padded(length: int) -> list[RegionKek]:
    """Return what takes so many bytes: names are padded, as base64 grows by four."""
    keks = [RegionKek(f"r{number}", "a", bytes(5000)) for number in range(2)]
    missing = length - len(encode_wrapped(WrappedSystemKey(bytes(60), keks)))
    padding = [min(missing, 2000), missing - min(missing, 2000)]
    return [RegionKek(kek.region, "a" * (1 + more), kek.encrypted_kek) for kek, more in zip(keks, padding, strict=True)]
