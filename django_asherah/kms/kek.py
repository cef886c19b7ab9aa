"""A system key wrapped for several regions, and its exact JSON.

Source: ``go/appencryption/plugins/aws-v2/kms`` of godaddy/asherah. Every official SDK reads these member names: they
may never change. The order of ``kmsKeks`` carries no meaning.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from django_asherah.envelope.records import MAX_WRAPPED_KEY_LENGTH, SealedKey
from django_asherah.exceptions import InvalidRecordError

MAX_CIPHERTEXT_LENGTH = 6144
"""Bytes: the longest ``CiphertextBlob`` that AWS KMS takes (its API reference, ``Decrypt``)."""

Name = Annotated[str, Meta(min_length=1, max_length=2048)]


class RegionKek(Struct, frozen=True, rename="camel"):
    """The KEK as one region's master key has wrapped it."""

    region: Name
    arn: Name
    encrypted_kek: Annotated[bytes, Meta(min_length=1, max_length=MAX_CIPHERTEXT_LENGTH)]


class WrappedSystemKey(Struct, frozen=True, rename="camel"):
    """A system key sealed by a KEK, and that KEK wrapped once per region."""

    encrypted_key: SealedKey
    kms_keks: Annotated[list[RegionKek], Meta(max_length=100)]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(WrappedSystemKey)


def encode_wrapped(wrapped: WrappedSystemKey) -> bytes:
    """Return the JSON that becomes ``Key`` of a system key's record.

    Raises:
        InvalidRecordError: it is longer than the SDKs take.
    """
    blob = _encoder.encode(wrapped)
    if len(blob) > MAX_WRAPPED_KEY_LENGTH:
        raise InvalidRecordError(
            f"a system key wrapped for {len(wrapped.kms_keks)} regions takes {len(blob)} bytes, over the SDKs' "
            f"limit of {MAX_WRAPPED_KEY_LENGTH}: configure fewer regions"
        )
    return blob


def decode_wrapped(blob: bytes) -> WrappedSystemKey:
    """Read ``Key`` of a system key's record.

    Raises:
        InvalidRecordError: another KMS wrapped it.
    """
    try:
        return _decoder.decode(blob)
    except UnicodeError:  # This exception holds the whole text, so it may not stay in the chain.
        reason = "not valid UTF-8 text"
    except (msgspec.DecodeError, RecursionError) as exc:
        reason = str(exc)
    raise InvalidRecordError(f"not a system key wrapped by AWS KMS: {reason}")


def named_pairs(names: Iterable[str], entries: list[RegionKek]) -> list[tuple[str, RegionKek]]:
    """Return which of these master keys to try with which entries: first those that the entries name.

    A name that stands nowhere is tried with every entry: that of a key that an alias was pointed at, say.
    """
    names, stored = list(dict.fromkeys(names)), {entry.arn for entry in entries}
    named = [(name, entry) for name in names for entry in entries if name == entry.arn]
    return [*named, *((name, entry) for name in names if name not in stored for entry in entries)]
