"""The records of some rows: which keys they name, all of these loaded together, and whose they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from django_asherah.envelope.compact import is_compact
from django_asherah.envelope.records import KeyMeta
from django_asherah.exceptions import InvalidRecordError, PartitionMismatchError
from django_asherah.fields.sealed import Keys
from django_asherah.fields.sealing import load_keys
from django_asherah.lifecycle.columns import Column, Row
from django_asherah.lifecycle.origins import Origin, Origins


class RowRecord(Struct, frozen=True):
    """The record of one row.

    Attributes:
        row: the row.
        key: the key that its record names; None if it names none, or one that the key table does not have.
        origin: whose record it is, if it is not of the partition that the row says, or the row says none.
        keys: the keys of the rows that were read together.
    """

    row: Row
    key: KeyMeta | None
    origin: Origin | None
    keys: Keys

    def __repr__(self) -> str:
        return f"<RowRecord {self.row.pk}>"


class RecordReader:
    """Looks at the records of one column."""

    def __init__(self, column: Column) -> None:
        self._column = column
        self._origins = Origins()

    def read(self, rows: Sequence[Row]) -> Iterator[RowRecord]:
        """Return the record of each row, opened by nobody yet.

        Raises:
            MetastoreError: the key table can't be read.
        """
        named = [self._column.field.find_key(row.raw, row.partition) for row in rows]
        strays = [row for row, key in zip(rows, named, strict=True) if self._is_stray(row, key)]
        origins = dict(zip([row.pk for row in strays], self._origins.find([row.raw for row in strays]), strict=True))
        found = [(row, origins.get(row.pk), key) for row, key in zip(rows, named, strict=True)]
        keys = load_keys(origin.key if origin else key for _, origin, key in found)
        return (RowRecord(row, origin.key if origin else key, origin, keys) for row, origin, key in found)

    def _is_stray(self, row: Row, key: KeyMeta | None) -> bool:
        """Tell whether a row holds a whole record that is not of the partition which it says."""
        if key is not None:
            return not row.fault and key.key_id != self._column.session(row).partition.intermediate_key_id
        if not is_compact(row.raw):
            return False
        if row.fault:
            return True
        try:
            self._column.session(row).read(row.raw)
        except PartitionMismatchError:
            return True
        except InvalidRecordError:
            pass
        return False
