"""A metastore in memory: for tests and for trying things out."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta


class MemoryMetastore:
    """Keeps key records as long as the process lives. Thread-safe."""

    def __init__(self) -> None:
        self.records: dict[KeyMeta, EnvelopeKeyRecord] = {}
        self._lock = threading.Lock()

    def load(self, meta: KeyMeta) -> EnvelopeKeyRecord | None:
        """Return the record with exactly this key id and creation time, or None."""
        return self.records.get(meta)

    def load_many(self, metas: Sequence[KeyMeta]) -> dict[KeyMeta, EnvelopeKeyRecord]:
        """Return the records of those of these keys that there are."""
        return {meta: record for meta in metas if (record := self.records.get(meta))}

    def load_latest(self, key_id: str) -> EnvelopeKeyRecord | None:
        """Return the record with the greatest creation time of this key id, or None."""
        with self._lock:
            metas = [meta for meta in self.records if meta.key_id == key_id]
        return self.records[max(metas, key=lambda meta: meta.created)] if metas else None

    def store(self, key_id: str, record: EnvelopeKeyRecord) -> bool:
        """Insert ``record`` if its (key id, creation time) is free."""
        meta = KeyMeta(key_id, record.created)
        with self._lock:
            return self.records.setdefault(meta, record) is record

    def is_committed(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> bool:
        """Return True: nothing here is ever rolled back."""
        return True
