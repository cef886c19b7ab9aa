"""The newest record of a key id that new writes may go by: one bad row does not hide the sound ones behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from django_asherah.envelope.events import EventQueue
from django_asherah.envelope.interfaces import KeyPassedOver, ListsVersions, Metastore
from django_asherah.envelope.one_by_one import many_at_once
from django_asherah.envelope.records import EnvelopeKeyRecord
from django_asherah.exceptions import InvalidRecordError

FindFault = Callable[[str, EnvelopeKeyRecord, float], str]
"""Returns why new writes must not go by the record of a key id at a moment (Unix seconds); ``""`` if they may."""


class NewestRecords:
    """Finds the newest sound records of key ids. Rows that are passed over are reported, each time.

    Args:
        metastore: where they are.
        find_fault: tells which records are not for new writes.
        notify: is told of every ``KeyPassedOver``.
    """

    def __init__(self, metastore: Metastore, find_fault: FindFault, notify: EventQueue) -> None:
        self._metastore = metastore
        self._many = many_at_once(metastore)
        self._find_fault = find_fault
        self._notify = notify

    def find(self, key_id: str, now: float) -> EnvelopeKeyRecord | None:
        """Return the newest sound record of this id at ``now`` (Unix seconds), or None.

        Raises:
            InvalidRecordError: the newest row is not sound, and the metastore can't list the others.
            MetastoreError: the storage fails.
        """
        try:
            record = self._metastore.load_latest(key_id)
        except InvalidRecordError as exc:
            return self._find_behind(key_id, exc, now)
        if record is not None and self._find_fault(key_id, record, now):
            return self._find_behind(key_id, None, now, record)
        return record

    def find_many(self, key_ids: Sequence[str], now: float) -> dict[str, EnvelopeKeyRecord]:
        """Return the newest sound record of each of these ids that has one.

        Raises:
            InvalidRecordError, MetastoreError: as :meth:`find`.
        """
        if not key_ids:
            return {}
        try:
            found = self._many.load_latest_many(key_ids)
        except InvalidRecordError:
            return dict(self._find_in_halves(key_ids, now))
        for key_id in [key_id for key_id, record in found.items() if self._find_fault(key_id, record, now)]:
            found |= _named(key_id, self._find_behind(key_id, None, now, found.pop(key_id)))
        return found

    def find_before(self, key_id: str, created: int, now: float) -> Iterator[EnvelopeKeyRecord]:
        """Yield the sound records of this id from before ``created``, the newest first.

        None if the metastore can't list them.

        Raises:
            MetastoreError: the storage fails.
        """
        rows = self._metastore.versions(key_id) if isinstance(self._metastore, ListsVersions) else ()
        for row in rows:
            with suppress(InvalidRecordError):
                record = row.record()
                if record.created < created and not self._find_fault(key_id, record, now):
                    yield record

    def holds_none(self, key_id: str) -> bool:
        """Tell whether there is no row of this id, be it sound or not.

        Raises:
            MetastoreError: the storage fails.
        """
        try:
            return self._metastore.load_latest(key_id) is None
        except InvalidRecordError:
            return False

    def _find_in_halves(self, key_ids: Sequence[str], now: float) -> Iterator[tuple[str, EnvelopeKeyRecord]]:
        """Find by fewer and fewer at a time, so that a bad row among a thousand ids costs twenty questions."""
        if len(key_ids) == 1:
            yield from _named(key_ids[0], self.find(key_ids[0], now)).items()
            return
        half = len(key_ids) // 2
        for part in (key_ids[:half], key_ids[half:]):
            yield from self.find_many(part, now).items()

    def _find_behind(
        self, key_id: str, cause: InvalidRecordError | None, now: float, newest: EnvelopeKeyRecord | None = None
    ) -> EnvelopeKeyRecord | None:
        """Return the newest sound record, where the newest row is not."""
        if not isinstance(self._metastore, ListsVersions):
            if cause is not None:
                raise cause
            return newest
        for row in self._metastore.versions(key_id):
            try:
                record = row.record()
                reason = self._find_fault(key_id, record, now)
            except InvalidRecordError as exc:
                reason = str(exc)
            if not reason:
                return record
            self._notify(KeyPassedOver(key_id, reason))
        return None


def _named(key_id: str, record: EnvelopeKeyRecord | None) -> dict[str, EnvelopeKeyRecord]:
    return {} if record is None else {key_id: record}
