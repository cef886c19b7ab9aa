"""The records of some rows: which keys they name, all of these loaded together, and whose they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from django_asherah.envelope.compact import is_compact
from django_asherah.envelope.records import KeyMeta
from django_asherah.envelope.session import Session
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
        sessions = self._column.sessions(rows)
        expected = {said: session.partition.readable_ids for said, session in sessions.items()}
        named = [self._column.field.find_key(row.raw, row.partition) for row in rows]
        strays = [
            row
            for row, key in zip(rows, named, strict=True)
            if (key is None or key.key_id not in expected.get(row.partition, ())) and _is_stray(row, key, sessions)
        ]
        origins = dict(zip([row.pk for row in strays], self._origins.find([row.raw for row in strays]), strict=True))
        if origins:
            named = [origins[row.pk].key if row.pk in origins else key for row, key in zip(rows, named, strict=True)]
        keys = load_keys(set(named))
        return (RowRecord(row, key, origins.get(row.pk), keys) for row, key in zip(rows, named, strict=True))


def _is_stray(row: Row, key: KeyMeta | None, sessions: Mapping[str | None, Session]) -> bool:
    """Tell whether a row whose record does not name its partition's key holds a whole record all the same."""
    if key is not None:
        return not row.fault
    if not is_compact(row.raw):
        return False
    if row.fault:
        return True
    try:
        sessions[row.partition].read(row.raw)
    except PartitionMismatchError:
        return True
    except InvalidRecordError:
        pass
    return False
