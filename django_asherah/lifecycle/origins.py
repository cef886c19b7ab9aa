"""Records that are not of the partition which their row says: whose they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any

from msgspec import Struct

from django_asherah.envelope.compact import PREFIX_LENGTH, compact_prefix, is_compact
from django_asherah.envelope.records import KeyMeta, decode_row
from django_asherah.exceptions import InvalidRecordError, PartitionMismatchError
from django_asherah.lifecycle.columns import Column, Row
from django_asherah.lifecycle.context import get_context

MOST_KNOWN = 100_000
"""Keys that are remembered by what compact records say of them: about 20 MB."""


class Origin(Struct, frozen=True):
    """Whose record it is.

    Attributes:
        key: the intermediate key that it names; None if the key table has none that a compact record could mean.
        partition: the partition of that key; None if it is none of this service, product and suffix.
    """

    key: KeyMeta | None
    partition: str | None

    def mismatch(self, column: Column, row: Row) -> PartitionMismatchError:
        """Return the error for a record that stands in this row."""
        whose = f"the row says {row.partition!r}"
        if row.partition is None:
            whose = f"the field's partition is {column.session(row).partition.partition_id!r}"
        if self.partition is None:
            named = f"key {self.key}, which is" if self.key else "a key that is"
            return PartitionMismatchError(
                f"the record names {named} not in the key table as one of this service and product, and {whose}: "
                "put the row's own value here, from a backup"
            )
        return PartitionMismatchError(
            f"the record is of partition {self.partition!r}, but {whose}. If the row was moved or the field's partition "
            f"changed, run: manage.py asherah_reencrypt {column.label} --moved. If not, somebody has put another "
            "row's record here"
        )


class Origins:
    """Finds out whose records are.

    JSON names its key. A compact record holds only a fingerprint of the key's id: for these the key table is read from
    its beginning to its end, once for all that are asked of together, and once for good if it has at most ``MOST_KNOWN``
    keys of this service and product.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, KeyMeta] = {}
        self._knows_all = False

    def find(self, records: Collection[str | bytes]) -> list[Origin]:
        """Return whose each of these records is, none of which is damaged.

        Raises:
            MetastoreError: the metastore fails, or can't list its keys, which compact records need.
        """
        self._learn(record[:PREFIX_LENGTH] for record in records if is_compact(record))
        keys = [self._key_of(record) for record in records]
        context = get_context(keep_keys=True)
        stored = context.factory.metastore.load_many([key for key in dict.fromkeys(keys) if key is not None])
        return [
            # Only the key's own record proves whose it is.
            Origin(key, context.partition_of(key.key_id, stored[key].parent_key_meta) if key in stored else None)
            if key is not None
            else Origin(None, None)
            for key in keys
        ]

    def _key_of(self, record: Any) -> KeyMeta | None:
        if is_compact(record):
            return self._known.get(record[:PREFIX_LENGTH])
        return decode_row(record).key.parent_key_meta

    def _learn(self, prefixes: Iterable[bytes]) -> None:
        wanted = {prefix for prefix in prefixes if prefix not in self._known}
        if not wanted or self._knows_all:
            return
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        context = get_context(keep_keys=True)
        self._knows_all = True
        for row in context.table.scan():
            with suppress(InvalidRecordError):
                record = row.record()
                if context.partition_of(row.key_id, record.parent_key_meta) is None:
                    continue
                key = KeyMeta(row.key_id, record.created)
                if (prefix := compact_prefix(key)) in wanted or len(self._known) < MOST_KNOWN:
                    self._known[prefix] = key
                else:
                    self._knows_all = False
