"""The key table as a whole: what the lifecycle of keys asks of a metastore, and the engine never does.

The keys of a metastore of your own can be listed, verified and rotated if it has the methods of :class:`ListsKeys`; and
revoked and re-wrapped if it has that of :class:`ReplacesKeys`, too. :class:`FindsKeys` only saves time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, decode_key
from django_asherah.exceptions import InvalidRecordError, MetastoreError


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One row of the key table, as it was read. It may hold a record that is broken, or no key at all.

    Attributes:
        key_id: its key id.
        text: its record's JSON.
        stored: what :meth:`ReplacesKeys.replace` compares, where that is not the text. Only its metastore looks at it.
        fault: why nothing may be written under it though its record can be read: what the row is stored under is not
            what its record says. Nothing if nothing is wrong.
    """

    key_id: str
    text: str | bytes
    stored: Any = None
    fault: str = ""

    def record(self) -> EnvelopeKeyRecord:
        """Return the record.

        Raises:
            InvalidRecordError: it can't be read, or has a fault.
        """
        record = decode_key(self.text)
        if self.fault:
            raise InvalidRecordError(self.fault)
        return record


@runtime_checkable
class ListsKeys(Protocol):
    """A metastore that can list its rows. Both methods raise ``MetastoreError`` when the storage fails."""

    def scan(self) -> Iterator[KeyRow]:
        """Yield every row, the rows of one key id one after the other, the newest first.

        Other keys may be stored between two rows: a rotation does so. It may meet those or not.
        """

    def versions(self, key_id: str) -> Iterable[KeyRow]:
        """Return the rows of one key id, the newest first."""


@runtime_checkable
class ReplacesKeys(Protocol):
    """A metastore that can replace a record, by compare-and-swap."""

    def replace(self, row: KeyRow, record: EnvelopeKeyRecord) -> bool:
        """Put ``record`` in the place of exactly what ``row`` was read as; False if something else stands there.

        To compare and to write must be one step: a revocation by another process must never be overwritten.

        Raises:
            MetastoreError: the storage fails.
        """


@runtime_checkable
class FindsKeys(Protocol):
    """A metastore that answers these three by itself, faster than :class:`KeyTable` does from a listing."""

    def read(self, meta: KeyMeta) -> KeyRow | None:
        """Return one key's row."""

    def children(self, parent: KeyMeta) -> Iterable[KeyRow]:
        """Return every row that names ``parent`` as its parent, and perhaps some more: those of one id together."""

    def count(self) -> int:
        """Return the number of rows."""


class KeyTable:
    """The key table of a metastore.

    Raises:
        MetastoreError: the metastore can't list its keys.
    """

    def __init__(self, metastore: object) -> None:
        if not isinstance(metastore, ListsKeys):
            raise _missing(metastore, ListsKeys, "list its keys", "scan", "versions")
        self._metastore = metastore

    def scan(self) -> Iterator[KeyRow]:
        """Yield every row: the rows of one key id one after the other, the newest first."""
        return self._metastore.scan()

    def versions(self, key_id: str) -> Iterable[KeyRow]:
        """Return the rows of one key id, the newest first."""
        return self._metastore.versions(key_id)

    def read(self, meta: KeyMeta) -> KeyRow | None:
        """Return one key's row, or None."""
        if isinstance(self._metastore, FindsKeys):
            return self._metastore.read(meta)
        rows = _readable(self.versions(meta.key_id))
        return next((row for row, record in rows if record.created == meta.created), None)

    def children(self, parent: KeyMeta) -> Iterator[KeyRow]:
        """Yield the rows of all keys that name ``parent`` as their parent."""
        rows = self._metastore.children(parent) if isinstance(self._metastore, FindsKeys) else self.scan()
        return (row for row, record in _readable(rows) if record.parent_key_meta == parent)

    def count(self) -> int:
        """Return the number of rows."""
        return self._metastore.count() if isinstance(self._metastore, FindsKeys) else sum(1 for _ in self.scan())

    def require_replace(self) -> None:
        """Do nothing if records can be replaced.

        Raises:
            MetastoreError: the metastore can't do that.
        """
        self._replacer()

    def replace(self, row: KeyRow, record: EnvelopeKeyRecord) -> bool:
        """Put ``record`` in the place of exactly what ``row`` was read as; False if something else stands there by now.

        Raises:
            MetastoreError: the metastore can't do that, or fails.
        """
        return self._replacer().replace(row, record)

    def _replacer(self) -> ReplacesKeys:
        if not isinstance(self._metastore, ReplacesKeys):
            raise _missing(
                self._metastore, ReplacesKeys, "replace a key's record, which revoking and re-wrapping need", "replace"
            )
        return self._metastore


def _readable(rows: Iterable[KeyRow]) -> Iterator[tuple[KeyRow, EnvelopeKeyRecord]]:
    for row in rows:
        with suppress(InvalidRecordError):
            yield row, row.record()


def _missing(metastore: object, protocol: type, what: str, *methods: str) -> MetastoreError:
    name = type(metastore).__name__
    lacks = [f"{method}()" for method in methods if not hasattr(metastore, method)]
    return MetastoreError(
        f"the metastore {name} can't {what}: it has no {' and no '.join(lacks)}. "
        f"Implement {__name__}.{protocol.__name__}"
    )
