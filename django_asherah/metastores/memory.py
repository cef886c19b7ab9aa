"""A metastore in memory: for tests and for trying things out."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence

from django_asherah.envelope.forksafe import PerProcess
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, encode_key, printable
from django_asherah.exceptions import InvalidRecordError
from django_asherah.metastores.key_table import KeyRow
from django_asherah.metastores.shifts import fault_between


class MemoryMetastore:
    """Keeps key records as long as the process lives. Thread-safe."""

    def __init__(self) -> None:
        self.records: dict[KeyMeta, EnvelopeKeyRecord] = {}
        self._lock = PerProcess(threading.Lock)

    def load(self, meta: KeyMeta) -> EnvelopeKeyRecord | None:
        """Return the record with exactly this key id and creation time, or None."""
        return self.records.get(meta)

    def load_many(self, metas: Sequence[KeyMeta]) -> dict[KeyMeta, EnvelopeKeyRecord]:
        """Return the records of those of these keys that there are."""
        found = {meta: record for meta in metas if (record := self.records.get(meta))}
        return {meta: record for meta, record in found.items() if record.created == meta.created}

    def load_latest(self, key_id: str) -> EnvelopeKeyRecord | None:
        """Return the record with the greatest creation time of this key id, or None."""
        with self._lock.get():
            metas = [meta for meta in self.records if meta.key_id == key_id]
        return self._sound(max(metas, key=lambda meta: meta.created)) if metas else None

    def store(self, key_id: str, record: EnvelopeKeyRecord) -> bool:
        """Insert ``record`` if its (key id, creation time) is free."""
        meta = KeyMeta(key_id, record.created)
        with self._lock.get():
            return self.records.setdefault(meta, record) is record

    def load_latest_many(self, key_ids: Sequence[str]) -> dict[str, EnvelopeKeyRecord]:
        """Return the record with the greatest creation time of each of these key ids that has any."""
        wanted, newest = set(key_ids), dict[str, KeyMeta]()
        with self._lock.get():
            for meta in self.records:
                key_id = meta.key_id
                if key_id in wanted and (key_id not in newest or newest[key_id].created < meta.created):
                    newest[key_id] = meta
        return {key_id: self._sound(meta) for key_id, meta in newest.items()}

    def store_many(self, records: Mapping[KeyMeta, EnvelopeKeyRecord]) -> set[KeyMeta]:
        """Insert those of these records whose (key id, creation time) is free; return which those were."""
        with self._lock.get():
            free = {meta: record for meta, record in records.items() if meta not in self.records}
            self.records.update(free)
            return set(free)

    def is_committed(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> bool:
        """Return True: nothing here is ever rolled back."""
        return True

    def scan(self) -> Iterator[KeyRow]:
        """Yield every row: by id, each id's newest first."""
        with self._lock.get():
            records = sorted(self.records.items(), key=lambda item: (item[0].key_id, -item[0].created))
        return (
            KeyRow(meta.key_id, encode_key(record), fault=fault_between(record.created, meta.created))
            for meta, record in records
        )

    def versions(self, key_id: str) -> list[KeyRow]:
        """Return every row of one key id, the newest first."""
        return [row for row in self.scan() if row.key_id == key_id]

    def replace(self, row: KeyRow, record: EnvelopeKeyRecord) -> bool:
        """Put ``record`` in the place of exactly what ``row`` holds; False if something else stands there by now."""
        meta = KeyMeta(row.key_id, record.created)
        with self._lock.get():
            if self.records.get(meta) != row.record():
                return False
            self.records[meta] = record
            return True

    def _sound(self, meta: KeyMeta) -> EnvelopeKeyRecord:
        record = self.records[meta]
        if fault := fault_between(record.created, meta.created):
            raise InvalidRecordError(f"key {printable(meta.key_id)} (latest) in memory: {fault}")
        return record
