"""What must hold for any bytes at all: one of our own errors, or exactly what was sealed.

A target takes bytes and returns nothing. Any exception but the ones it expects is a finding, ``AssertionError``
if the answer is wrong.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from django_asherah.envelope.compact import decode_compact, encode_compact
from django_asherah.envelope.records import KeyMeta, decode_key, decode_row, encode_key, encode_row
from django_asherah.exceptions import AsherahError, InvalidRecordError, KMSError, PartitionMismatchError
from django_asherah.fields import EncryptedJSONField, EncryptedTextField
from django_asherah.kms.kek import decode_wrapped, encode_wrapped
from fuzz import world

RECORDS = world.records()
COMPACT = world.compact_records()
PLAINTEXTS = set(RECORDS.values())
FACTORY = world.make_factory()
SESSION = FACTORY.get_session(world.PARTITION)
AWS = world.make_aws()
WRAPPED = world.wrapped_key()
KEY_ROWS = {row["id"]: row for row in world.VECTORS["key_rows"]}
KEY_ROW = KEY_ROWS[world.KEY_ID]
TEXT, DOCUMENT = EncryptedTextField(), EncryptedJSONField()
COMPACT_TEXT = EncryptedTextField(record_format="compact")

_PIECES = [
    *"{}[]:,",
    *('"Key"', '"Created"', '"ParentKeyMeta"', '"KeyId"', '"Data"', '"Revoked"', "null", "true", "1.5", "1e9", "-1"),
    *(str(KEY_ROW["created"]), f'"{world.KEY_ID}"', '"_IK_tenant-7_svc_prod"', '"New"', "9" * 400, "NaN", " "),
    *(f'"{part}"' for text in list(RECORDS)[:4] for part in text.split('"') if len(part) > 36),
    '{"Key":{"Created":',
    f'"ParentKeyMeta":{{"KeyId":"{world.KEY_ID}","Created":{KEY_ROW["created"]}}}',
]


def row(data: bytes) -> None:
    """A data row record that can be read can be written, and comes back the same."""
    for form in (data, as_text(data)):
        with contextlib.suppress(InvalidRecordError):
            record = decode_row(form)
            assert decode_row(encode_row(record)) == record


def key_record(data: bytes) -> None:
    """An envelope key record that can be read can be written, and comes back the same."""
    for form in (data, as_text(data)):
        with contextlib.suppress(InvalidRecordError):
            record = decode_key(form)
            assert decode_key(encode_key(record)) == record


def kek(data: bytes) -> None:
    """A wrapped system key that can be read comes back the same, if the SDKs would accept it."""
    with contextlib.suppress(InvalidRecordError):
        wrapped = decode_wrapped(data)
        assert decode_wrapped(encode_wrapped(wrapped)) == wrapped


def session(data: bytes) -> None:
    """Nothing opens but what was sealed."""
    for form in (data, as_text(data)):
        with contextlib.suppress(AsherahError):
            assert SESSION.decrypt(form) in PLAINTEXTS


def pieces(data: bytes) -> None:
    """The same for texts assembled from pieces of real records: each byte chooses one."""
    session(put_together(data).encode())


def compact(data: bytes) -> None:
    """A compact record is read and written byte for byte, and nothing opens but what was sealed."""
    with contextlib.suppress(InvalidRecordError, PartitionMismatchError):
        record = decode_compact(data, world.KEY_ID)
        assert encode_compact(record) == data
        with contextlib.suppress(AsherahError):
            assert SESSION.decrypt(data) == COMPACT[data]


def text_field(data: bytes) -> None:
    """A text field returns a text that was sealed, or an error."""
    with contextlib.suppress(AsherahError):
        assert TEXT.from_db_value(as_text(data), None, None).encode() in PLAINTEXTS  # type: ignore[arg-type]


def json_field(data: bytes) -> None:
    """A JSON field returns a document that was sealed, or an error."""
    with contextlib.suppress(AsherahError):
        assert DOCUMENT.from_db_value(as_text(data), None, None) == {"a": [1, None, True]}  # type: ignore[arg-type]


def compact_field(data: bytes) -> None:
    """A text field with a binary column does the same."""
    for form in (data, memoryview(data)):
        with contextlib.suppress(AsherahError):
            assert COMPACT_TEXT.from_db_value(form, None, None).encode() in PLAINTEXTS  # type: ignore[arg-type]


def unwrap(data: bytes) -> None:
    """The AWS KMS unwraps nothing but the system key that it wrapped."""
    with contextlib.suppress(InvalidRecordError, KMSError):
        assert AWS.decrypt_key(data) == world.SYSTEM_KEY


def key_row(data: bytes) -> None:
    """Whatever an intermediate key's row holds: reads return the right value or an error; new writes open again."""
    metastore = world.make_metastore()
    with contextlib.suppress(InvalidRecordError):
        metastore.records[KeyMeta(world.KEY_ID, KEY_ROW["created"])] = decode_key(data)
        session = world.make_factory(metastore).get_session(world.PARTITION)
        with contextlib.suppress(AsherahError):
            text, payload = next(iter(RECORDS.items()))
            assert session.decrypt(text) == payload
        with contextlib.suppress(AsherahError):
            assert session.decrypt(session.encrypt(b"new")) == b"new"


def put_together(data: bytes) -> str:
    """Return the text whose pieces ``data`` names."""
    return "".join(_PIECES[byte % len(_PIECES)] for byte in data)


def spell(text: str) -> bytes:
    """Return the bytes that make :func:`pieces` put ``text`` together."""
    spelled = bytearray()
    while text:
        piece = max((piece for piece in _PIECES if text.startswith(piece)), key=len)
        spelled.append(_PIECES.index(piece))
        text = text[len(piece) :]
    return bytes(spelled)


def as_text(data: bytes) -> str:
    """Return any bytes as a str, lone surrogates included."""
    return data.decode("utf-8", "surrogateescape")


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        row,
        key_record,
        kek,
        session,
        pieces,
        compact,
        text_field,
        json_field,
        compact_field,
        unwrap,
        key_row,
    )
}


def seeds(name: str) -> list[bytes]:
    """Return what a target's fuzzing starts from, besides its corpus."""
    texts = [text.encode() for text in RECORDS]
    keys = [record["key_record"].encode() for record in KEY_ROWS.values()]
    special: dict[str, list[Any]] = {
        "compact": list(COMPACT),
        "compact_field": [*COMPACT, *texts],
        "session": [*texts, *COMPACT],
        "kek": [WRAPPED],
        "unwrap": [WRAPPED],
        "key_record": keys,
        "key_row": [KEY_ROW["key_record"].encode(), *keys],
        "pieces": [spell(text) for text in list(RECORDS)[:4]],
    }
    return special.get(name, texts)
