"""The compact record format: a data row record in binary, for columns that only django-asherah reads.

Byte layout, version 1. It is a contract: what is stored in it must stay readable, so it may never change; another
layout gets another version byte.

====== ====== ========================================================================================
offset length meaning
====== ====== ========================================================================================
0      1      version: 0x01. JSON begins with ``{`` (0x7B) or white space, so the two are never confused
1      5      ``Created`` of the intermediate key: Unix seconds, unsigned, big-endian
6      6      the first 6 bytes of SHA-256 of the intermediate key's id in UTF-8
12     60     the data row key, sealed by the intermediate key
72     n + 28 the payload of n bytes, sealed by the data row key
====== ====== ========================================================================================

Both sealed parts are exactly those of the JSON form, so the one can be turned into the other without any key. The
informational ``Created`` of the data row key is not kept. The fingerprint tells another partition's record apart
early and clearly; what keeps partitions apart is that the intermediate key of the one does not open the other's.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from functools import lru_cache
from typing import TypeGuard

from django_asherah.envelope.records import (
    MAX_CREATED,
    MAX_PAYLOAD_LENGTH,
    SEALED_KEY_LENGTH,
    SEALED_OVERHEAD,
    DataRowKey,
    DataRowRecord,
    KeyMeta,
    printable,
)
from django_asherah.exceptions import InvalidRecordError, PartitionMismatchError

VERSION = b"\x01"

# The offsets of the table above. Five bytes of seconds last beyond MAX_CREATED, for which four would be too few.
_CREATED_END = 6
PREFIX_LENGTH = 12
_KEY_END = PREFIX_LENGTH + SEALED_KEY_LENGTH  # 72
_LEAST = _KEY_END + SEALED_OVERHEAD  # 100: an empty payload
_MOST = _LEAST + MAX_PAYLOAD_LENGTH


def is_compact(record: object) -> TypeGuard[bytes]:
    """Tell whether ``record`` is meant to be compact, of whatever version: JSON begins with no byte below 0x09, tab."""
    return isinstance(record, bytes) and b"" < record[:1] < b"\t"


def encode_compact(record: DataRowRecord) -> bytes:
    """Return ``record`` in the compact format: 100 bytes longer than its payload."""
    return b"".join((compact_prefix(record.key.parent_key_meta), record.key.key, record.data))


def compact_prefix(meta: KeyMeta) -> bytes:
    """Return what the records under the intermediate key ``meta`` begin with, before the sealed data row key."""
    fingerprint = hashlib.sha256(meta.key_id.encode()).digest()[: PREFIX_LENGTH - _CREATED_END]
    return VERSION + meta.created.to_bytes(_CREATED_END - 1) + fingerprint


def decode_compact(blob: bytes, key_id: str, others: tuple[str, ...] = ()) -> DataRowRecord:
    """Read a compact record of the partition whose intermediate key id is ``key_id`` or one of the ``others``.

    Raises:
        InvalidRecordError: not a compact record, or over a bound.
        PartitionMismatchError: another partition's record.
    """
    meta, sealed_key, sealed = split_compact(blob, key_id, others)
    return DataRowRecord(DataRowKey(meta.created, sealed_key, meta), sealed)


def split_compact(blob: bytes, key_id: str, others: tuple[str, ...] = ()) -> tuple[KeyMeta, bytes, bytes]:
    """Return a compact record's intermediate key, sealed data row key and sealed payload.

    Raises:
        InvalidRecordError, PartitionMismatchError: as :func:`decode_compact`.
    """
    if not _LEAST <= len(blob) <= _MOST:
        raise InvalidRecordError(f"not a compact record: {len(blob)} bytes, expected {_LEAST} to {_MOST}")
    try:
        meta = _meta(blob[:PREFIX_LENGTH], key_id)
    except PartitionMismatchError:
        if not others:
            raise
        meta = _meta_of_other(blob[:PREFIX_LENGTH], others, key_id)
    return meta, blob[PREFIX_LENGTH:_KEY_END], blob[_KEY_END:]


def _meta_of_other(prefix: bytes, others: tuple[str, ...], own: str) -> KeyMeta:
    for key_id in others:
        with suppress(PartitionMismatchError):
            return _meta(prefix, key_id)
    raise _mismatch(own)


@lru_cache(maxsize=4096)
def _meta(prefix: bytes, key_id: str) -> KeyMeta:
    """Return the key of partition ``key_id`` that ``prefix`` stands for; what is refused is not remembered."""
    if not prefix.startswith(VERSION):
        raise InvalidRecordError(f"not a compact record: its version byte is {prefix[0]:#04x}, not 0x01")
    meta = KeyMeta(key_id, int.from_bytes(prefix[1:_CREATED_END]))
    if meta.created > MAX_CREATED:
        raise InvalidRecordError(f"not a compact record: a key created {meta.created} is later than any can be")
    if prefix != compact_prefix(meta):
        raise _mismatch(key_id)
    return meta


def _mismatch(key_id: str) -> PartitionMismatchError:
    return PartitionMismatchError(f"the compact record is not of this partition, whose key is {printable(key_id)}")
