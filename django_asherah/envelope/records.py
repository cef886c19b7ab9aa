"""Asherah's records and their exact JSON.

Source: ``go/appencryption`` of godaddy/asherah (``EnvelopeKeyRecord``, ``DataRowRecord``, ``KeyMeta``). The member
names, their order in what is written, standard padded base64 and whole-second times are the wire format that every
official SDK reads: they may never change.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from django_asherah.exceptions import InvalidRecordError

SEALED_OVERHEAD = 28
"""Bytes that AES-256-GCM adds to a plaintext: a 16-byte tag and a 12-byte nonce."""

SEALED_KEY_LENGTH = 32 + SEALED_OVERHEAD
"""Bytes of a sealed intermediate key or data row key: AES-256 keys have 32."""

MAX_PAYLOAD_LENGTH = 64 * 1024 * 1024
"""Bytes. The Rust SDK refuses longer plaintexts (``asherah/src/limits.rs``)."""

MAX_WRAPPED_KEY_LENGTH = 16 * 1024
"""Bytes. The Rust SDK refuses longer encrypted keys (``asherah/src/limits.rs``)."""

MAX_KEY_ID_LENGTH = 255
"""Characters: the width of the ``id`` column in Asherah's published table."""

MAX_CREATED = 253_402_300_799
"""Unix seconds of 9999-12-31T23:59:59Z, the last second a SQL timestamp holds."""

# What is longer is not even parsed. Base64 makes 4 characters of 3 bytes; all the rest of a record fits into 4096, even
# if its key id is 255 pairs of \uXXXX escapes (3,060 characters).
_MAX_ROW_TEXT = (MAX_PAYLOAD_LENGTH + SEALED_OVERHEAD) * 4 // 3 + 4096
_MAX_KEY_TEXT = MAX_WRAPPED_KEY_LENGTH * 4 // 3 + 4096

_NOT_JSON = (msgspec.DecodeError, UnicodeError, RecursionError)

T = TypeVar("T")

# None of the structs below can be part of a reference cycle, so the garbage collector need not look at them.

KeyId = Annotated[str, Meta(min_length=1, max_length=MAX_KEY_ID_LENGTH)]
Created = Annotated[int, Meta(ge=0, le=MAX_CREATED)]
SealedKey = Annotated[bytes, Meta(min_length=SEALED_KEY_LENGTH, max_length=SEALED_KEY_LENGTH)]
WrappedKey = Annotated[bytes, Meta(min_length=SEALED_KEY_LENGTH, max_length=MAX_WRAPPED_KEY_LENGTH)]
SealedPayload = Annotated[bytes, Meta(min_length=SEALED_OVERHEAD, max_length=MAX_PAYLOAD_LENGTH + SEALED_OVERHEAD)]


class KeyMeta(Struct, frozen=True, rename="pascal", gc=False):
    """Names one key: its id and its creation time in Unix seconds."""

    key_id: KeyId
    created: Created

    def __str__(self) -> str:
        return f"{printable(self.key_id)} created {self.created}"


class EnvelopeKeyRecord(
    Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True, repr_omit_defaults=True
):
    """What the metastore holds for a system key or an intermediate key (EKR).

    ``key`` is the intermediate key sealed by its system key (60 bytes), or whatever the KMS made of a system key.
    ``parent_key_meta`` is None for a system key.
    """

    revoked: bool | None = False
    created: Created
    key: WrappedKey
    parent_key_meta: KeyMeta | None = None

    def __post_init__(self) -> None:
        if self.revoked is None:  # Missing, false and null mean the same; only true is ever written.
            msgspec.structs.force_setattr(self, "revoked", False)


class DataRowKey(Struct, frozen=True, rename="pascal", gc=False):
    """The data row key inside a data row record: sealed by the intermediate key that ``parent_key_meta`` names."""

    created: Created
    key: SealedKey
    parent_key_meta: KeyMeta


class DataRowRecord(Struct, frozen=True, rename="pascal", gc=False):
    """What a column holds (DRR): the payload sealed by a data row key of its own."""

    key: DataRowKey
    data: SealedPayload


def printable(key_id: str) -> str:
    """Return a key id for a message: control characters escaped, so that no record writes lines of its own to a log."""
    return key_id if key_id.isprintable() else repr(key_id)[1:-1]


write_json = msgspec.json.Encoder().encode
"""Returns the canonical JSON of a record, in UTF-8."""

_row_decoder = msgspec.json.Decoder(DataRowRecord)
_read_row = _row_decoder.decode
_key_decoder = msgspec.json.Decoder(EnvelopeKeyRecord)


def encode_row(record: DataRowRecord) -> str:
    """Return the canonical JSON of ``record``: no whitespace, members in the official order, UTF-8 as it is."""
    return write_json(record).decode()


def decode_row(text: str | bytes) -> DataRowRecord:
    """Read a data row record, members in any order, unknown members ignored.

    Raises:
        InvalidRecordError: not a record, or over a bound.
    """
    if text.__class__ is str and len(text) <= _MAX_ROW_TEXT:
        try:
            return _read_row(text)
        except _NOT_JSON:  # Looked at again below, for an error with nothing of the text in its chain.
            pass
    return _decode(_row_decoder, text, _MAX_ROW_TEXT, "a data row record", ": it was never encrypted, or is damaged")


def encode_key(record: EnvelopeKeyRecord) -> str:
    """Return the canonical JSON of ``record``, as the metastore stores it."""
    return write_json(record).decode()


def decode_key(text: str | bytes) -> EnvelopeKeyRecord:
    """Read an envelope key record.

    Raises:
        InvalidRecordError: not a record, or over a bound.
    """
    return _decode(_key_decoder, text, _MAX_KEY_TEXT, "an envelope key record")


def _decode(decoder: msgspec.json.Decoder[T], text: str | bytes, limit: int, kind: str, causes: str = "") -> T:
    if not isinstance(text, str | bytes):
        raise InvalidRecordError(f"not {kind}: expected text, got {type(text).__name__}")
    if len(text) > limit:
        raise InvalidRecordError(f"not {kind}: {len(text)} characters, over the limit of {limit}")
    if isinstance(text, str) and text.__class__ is not str:
        text = str.__str__(text)  # msgspec takes no subclass of str.
    try:
        return decoder.decode(text)
    except UnicodeError:  # This exception holds the whole text, so it may not stay in the chain.
        reason = "not valid UTF-8 text"
    except (msgspec.DecodeError, RecursionError) as exc:
        reason = str(exc)
    raise InvalidRecordError(f"not {kind}: {reason}{causes}")
