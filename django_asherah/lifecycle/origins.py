"""Records that are not of the partition which their row says: whose they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any

from msgspec import Struct

from django_asherah import engine
from django_asherah.envelope.compact import PREFIX_LENGTH, compact_prefix, is_compact
from django_asherah.envelope.partition import partition_under
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, decode_row
from django_asherah.exceptions import InvalidRecordError, PartitionMismatchError
from django_asherah.lifecycle.columns import Column, Row
from django_asherah.metastores.key_table import KeyTable

MOST_KNOWN = 100_000
"""Keys that are remembered by what compact records say of them: about 20 MB."""


class Origin(Struct, frozen=True):
    """Whose record it is.

    Attributes:
        key: the intermediate key that it names; None if the key table has none that a compact record could mean.
        partition: the partition of that key; None if it is none that this service and product reads.
    """

    key: KeyMeta | None
    partition: str | None

    def mismatch(self, column: Column, row: Row) -> PartitionMismatchError:
        """Return the error for a record that stands in this row, and tell of it."""
        error = self._error(column, row)
        column.sessions([row])[row.partition].tell_refused(error)
        return error

    def _error(self, column: Column, row: Row) -> PartitionMismatchError:
        whose = f"the row says {row.partition!r}"
        if row.partition is None:
            whose = f"the field's partition is {engine.get_session(column.field.partition).partition.partition_id!r}"
        if self.partition is None:
            named = f"key {self.key}, which is" if self.key else "a key that is"
            return PartitionMismatchError(
                f"the record names {named} not in the key table as one of this service and product, and {whose}: "
                "put the row's own value here, from a backup"
            )
        return PartitionMismatchError(
            f"the record is of partition {self.partition!r}, but {whose}. If the row was moved or the field's "
            f"partition changed, run: manage.py asherah_reencrypt {column.label} --moved. If not, somebody has put "
            "another row's record here"
        )


class Origins:
    """Finds out whose records are.

    JSON names its key. A compact record holds only a fingerprint of the key's id, for which the key table is read from
    its beginning to its end: once for all that are asked of together, and once for good if it has at most
    ``most_known`` keys of this service and product. A key that is made later is then found by the next run.

    Args:
        most_known: how many keys are remembered by their fingerprints.
    """

    def __init__(self, most_known: int = MOST_KNOWN) -> None:
        self._most_known = most_known
        self._known: dict[bytes, KeyMeta] = {}
        self._knows_all = False

    def find(self, records: Collection[str | bytes]) -> list[Origin]:
        """Return whose each of these records is, none of which is damaged.

        Raises:
            MetastoreError: the metastore fails, or can't list its keys, which compact records need.
        """
        if not records:
            return []
        self._learn(record[:PREFIX_LENGTH] for record in records if is_compact(record))
        keys = [self._key_of(record) for record in records]
        named = {key for key in keys if key is not None}
        stored = engine.get_factory().metastore.load_many(list(named))
        partitions = {key: _partition_of(key, record) for key, record in stored.items()}
        return [Origin(key, partitions.get(key) if key else None) for key in keys]

    def _key_of(self, record: Any) -> KeyMeta | None:
        if is_compact(record):
            return self._known.get(record[:PREFIX_LENGTH])
        return decode_row(record).key.parent_key_meta

    def _learn(self, prefixes: Iterable[bytes]) -> None:
        wanted = {prefix for prefix in prefixes if prefix not in self._known}
        if not wanted or self._knows_all:
            return
        if len(self._known) >= self._most_known:
            self._known.clear()
        self._knows_all = True
        for row in KeyTable(engine.get_factory().metastore).scan():
            with suppress(InvalidRecordError):
                record = row.record()
                key = KeyMeta(row.key_id, record.created)
                if _partition_of(key, record) is None:
                    continue
                if (prefix := compact_prefix(key)) in wanted or len(self._known) < self._most_known:
                    self._known[prefix] = key
                else:
                    self._knows_all = False


def _partition_of(key: KeyMeta, record: EnvelopeKeyRecord) -> str | None:
    """Return the partition whose key this is, if it is one that the configured service and product reads.

    The parent decides: the id of another service's key may look like one of ours.
    """
    parent = record.parent_key_meta
    return partition_under(engine.get_factory().system_key_ids, key.key_id, parent.key_id) if parent else None
