"""The vectors that this project publishes: pinned for good."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from django_asherah import exceptions
from django_asherah.envelope.compact import decode_compact, encode_compact
from django_asherah.envelope.records import KeyMeta, decode_key, decode_row, encode_key, encode_row
from django_asherah.envelope.session import SessionFactory
from django_asherah.kms.static import StaticKMS
from django_asherah.metastores.memory import MemoryMetastore
from scripts import make_vectors

PUBLISHED = "2b413cf8386874e5c047120fbb42246b0dc8d5ecb1acaf94482e40aac4598974"
FILE = Path(__file__).parent / "django_asherah_vectors.json"
VECTORS: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.fixture
def factory() -> SessionFactory:
    metastore = MemoryMetastore()
    for row in VECTORS["key_rows"]:
        metastore.records[KeyMeta(row["id"], row["created"])] = decode_key(row["key_record"])
    return SessionFactory("svc", "prod", metastore, StaticKMS(bytes.fromhex(VECTORS["static_key_hex"])))


def test_the_file_is_the_one_that_was_published() -> None:
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == PUBLISHED


def test_today_the_same_bytes_are_written() -> None:
    assert make_vectors.build() == VECTORS


def test_every_record_opens_in_both_formats(factory: SessionFactory) -> None:
    assert len(VECTORS["records"]) >= 15
    for item in VECTORS["records"]:
        session = factory.get_session(item["partition"])
        assert session.decrypt(item["drr"]) == base64.b64decode(item["plaintext"])
        row = decode_row(item["drr"])
        assert encode_row(row) == item["drr"]
        compact = base64.b64decode(item["compact"])
        assert encode_compact(row) == compact
        assert decode_compact(compact, row.key.parent_key_meta.key_id).data == row.data


def test_every_key_row_is_canonical() -> None:
    for row in VECTORS["key_rows"]:
        assert encode_key(decode_key(row["key_record"])) == row["key_record"]


@pytest.mark.parametrize("item", VECTORS["refused"], ids=lambda item: item["case"])
def test_what_must_be_refused_is(item: dict[str, str], factory: SessionFactory) -> None:
    with pytest.raises(exceptions.AsherahError) as caught:
        factory.get_session("default").decrypt(item["drr"])
    assert type(caught.value).__name__ == item["error"]
