"""Metastores of the lifecycle's tests, which outlive the engine's reset as a database does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, decode_key, encode_key
from django_asherah.exceptions import InvalidRecordError
from django_asherah.metastores.key_table import KeyRow
from django_asherah.metastores.memory import MemoryMetastore

BASE = {"SERVICE": "suite", "PRODUCT": "tests"}
ARNS = {"one": "arn-1", "two": "arn-2"}


class OwnMetastore:
    """What the engine needs, and nothing else: somebody's own table of texts."""

    def __init__(self) -> None:
        self.texts: dict[KeyMeta, str] = {}

    def load(self, meta: KeyMeta) -> EnvelopeKeyRecord | None:
        return decode_key(self.texts[meta]) if meta in self.texts else None

    def load_many(self, metas: Sequence[KeyMeta]) -> dict[KeyMeta, EnvelopeKeyRecord]:
        found = {}
        for meta in metas:
            try:
                record = self.load(meta)
            except InvalidRecordError:
                continue
            if record is not None:
                found[meta] = record
        return found

    def load_latest(self, key_id: str) -> EnvelopeKeyRecord | None:
        metas = sorted((meta for meta in self.texts if meta.key_id == key_id), key=lambda meta: -meta.created)
        return self.load(metas[0]) if metas else None

    def store(self, key_id: str, record: EnvelopeKeyRecord) -> bool:
        return self.texts.setdefault(KeyMeta(key_id, record.created), text := encode_key(record)) is text

    def is_committed(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> bool:
        return True


class ListingMetastore(OwnMetastore):
    """One that can be listed, too."""

    def scan(self) -> Iterator[KeyRow]:
        metas = sorted(self.texts, key=lambda meta: (meta.key_id, -meta.created))
        return (KeyRow(meta.key_id, self.texts[meta]) for meta in metas)

    def versions(self, key_id: str) -> list[KeyRow]:
        return [row for row in self.scan() if row.key_id == key_id]


class WholeMetastore(ListingMetastore):
    """One with compare-and-swap, too: all that the lifecycle asks for."""

    def replace(self, row: KeyRow, record: EnvelopeKeyRecord) -> bool:
        meta = KeyMeta(row.key_id, record.created)
        if self.texts.get(meta) != row.text:
            return False
        self.texts[meta] = encode_key(record)
        return True


current: Any = None
"""What the settings name by :func:`get_current`."""


def get_current(settings: Any) -> Any:
    """Return the metastore of the test."""
    return current


def use(metastore: OwnMetastore | MemoryMetastore) -> dict[str, Any]:
    """Let the test use ``metastore``; return the settings for that."""
    global current
    current = metastore
    return {"METASTORE": "tests.lifecycle.stores.get_current"}
