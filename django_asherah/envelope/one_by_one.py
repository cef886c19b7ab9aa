"""A metastore that knows one key at a time, asked for many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from django_asherah.envelope.interfaces import Metastore, StoresMany
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta


class OneByOne:
    """Makes of a plain :class:`Metastore` one that :class:`StoresMany`, with one call per key."""

    def __init__(self, metastore: Metastore) -> None:
        self._metastore = metastore

    def load_latest_many(self, key_ids: Sequence[str]) -> dict[str, EnvelopeKeyRecord]:
        """Return the newest record of each of these ids that has one."""
        found = {key_id: self._metastore.load_latest(key_id) for key_id in key_ids}
        return {key_id: record for key_id, record in found.items() if record is not None}

    def store_many(self, records: Mapping[KeyMeta, EnvelopeKeyRecord]) -> set[KeyMeta]:
        """Insert those of these records whose place is free; return which those were."""
        return {meta for meta, record in records.items() if self._metastore.store(meta.key_id, record)}


def many_at_once(metastore: Metastore) -> StoresMany:
    """Return ``metastore`` itself if it can do many keys at once, else what asks it one by one."""
    return metastore if isinstance(metastore, StoresMany) else OneByOne(metastore)
