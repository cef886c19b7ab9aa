"""Re-encrypt: rewrite values under the newest keys, in a live table, with nothing lost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from django.db import connections, transaction

from django_asherah import audit, engine, signals
from django_asherah.envelope.records import KeyMeta
from django_asherah.exceptions import DecryptionError, EncryptionError, KeyNotFoundError
from django_asherah.lifecycle.bad_values import BadValue, BadValues
from django_asherah.lifecycle.columns import Column, Row, encrypted_columns, names_of
from django_asherah.lifecycle.exact_session import exact_session
from django_asherah.lifecycle.giving_way import HeldError, insist
from django_asherah.lifecycle.looks import UNCOMPARABLE, Looks
from django_asherah.lifecycle.progress import Progress, tell_nobody
from django_asherah.lifecycle.records import RecordReader, RowRecord
from django_asherah.lifecycle.replacing import Outcome, replace_values
from django_asherah.lifecycle.swap import ROWS_PER_TRANSACTION, Swap

_LOOKS = 20
_MOST_ENDS = 10
_LOOKS_AT_FREE_ROWS = 3
"""How often a row is read without holding it. Writers wait for a held one, so that it is done whatever they do."""


@dataclass(slots=True)
class ReencryptionReport:
    """What was rewritten.

    Attributes:
        rewritten: values, by column; with ``dry_run`` those that would be.
        moved: how many of these were records of another partition than their row says, by column.
        current: values that were under the newest key already, by column.
        conflicts: how often somebody else had changed or held a value meanwhile; it was read again.
        bad: values that do not open, and were left as they are.
    """

    rewritten: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)
    current: Counter[str] = field(default_factory=Counter)
    conflicts: int = 0
    bad: BadValues = field(default_factory=BadValues)

    def merge(self, other: ReencryptionReport) -> None:
        """Add what another report counted."""
        self.rewritten.update(other.rewritten)
        self.moved.update(other.moved)
        self.current.update(other.current)
        self.conflicts += other.conflicts
        self.bad.merge(other.bad)


@dataclass(frozen=True, slots=True)
class Options:
    """How to go about it; see :func:`reencrypt`."""

    all: bool = False
    moved: bool = False
    shard: int = 0
    shards: int = 1
    rate: float | None = None
    batch: int = ROWS_PER_TRANSACTION
    dry_run: bool = False
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


@engine.own_keys()
def reencrypt(
    names: Iterable[str] = (),
    *,
    alias: str | None = None,
    options: Options | None = None,
    progress: Progress = tell_nobody,
) -> ReencryptionReport:
    """Rewrite every value whose keys are not the newest, or whose record is not in the field's format.

    A value is replaced only if it still is, byte for byte, what was read, in a row that still says the same partition:
    a concurrent writer always wins, and the new value is looked at again; the fourth time, its row is locked for it. No
    ``save()``, no signals, no ``auto_now``. Safe to interrupt at any moment; run again, it passes over what is done.

    With ``moved``, a record of another partition of this service and product is opened as such and sealed for the one
    that its row says: after ``QuerySet.update()`` has moved rows to other tenants, and after a field's ``partition``
    has changed. This trusts whoever can write the table: what somebody put into a row of another tenant will be
    readable there. Without it, such a value is reported and left.

    Args:
        names: ``app.Model`` or ``app.Model.field``; all if empty.
        alias: the database to rewrite; what the routers say if None.
        options: ``all`` rewrites what is current, too; ``moved`` what is another partition's; ``shard`` of ``shards``
            (from 0) takes its part of the rows, by a hash of the primary key; ``rate`` is rows per second at most;
            ``batch`` is rows per transaction.
        progress: is told how many more values were looked at.

    Raises:
        UnknownColumnError: a name is not one of an encrypted column.
        KMSError, MetastoreError: the newest key can't be loaded or made.
        OperationalError: the database failed, or others held the whole of it.
    """
    options = options or Options()
    report = ReencryptionReport()
    columns = encrypted_columns(names, alias)
    with nullcontext() if options.dry_run else _recorded(columns, options, report):
        for column in columns:
            _Rewriter(column, options, report, progress).run()
    return report


def _recorded(columns: Sequence[Column], options: Options, report: ReencryptionReport) -> AbstractContextManager[None]:
    return audit.recorded(
        signals.data_reencrypted,
        "reencrypted",
        lambda: {
            **names_of(columns),
            "rewritten": report.rewritten.total(),
            "moved": report.moved.total(),
            "current": report.current.total(),
            "bad": report.bad.total,
            "shard": f"{options.shard + 1}/{options.shards}",
        },
        has_problems=lambda: bool(report.bad.total),
    )


class _Rewriter:
    """Rewrites one column."""

    def __init__(self, column: Column, options: Options, report: ReencryptionReport, progress: Progress) -> None:
        self._column = column
        self._reader = RecordReader(column)
        self._options = options
        self._report = report
        self._progress = progress
        self._started = options.clock()
        self._seen = 0

    def run(self) -> None:
        with exact_session(connections[self._column.alias]):
            for rows in self._batches():
                self._rewrite(rows)
                self._progress(len(rows))
                self._keep_to_rate(len(rows))

    def _batches(self) -> Iterator[list[Row]]:
        after = None
        # Rows that were added or moved behind the end meanwhile are followed, ten times at the most.
        for _ in range(_MOST_ENDS):
            until = self._column.last_key()
            if until in {None, after}:
                return
            yield from self._batches_between(after, until)
            after = until

    def _batches_between(self, after: Any, until: Any) -> Iterator[list[Row]]:
        size, shards = self._options.batch, self._options.shards
        if shards == 1:
            yield from self._column.rows(size, after, until)
            return
        for keys in self._column.keys(size * shards, after, until):
            mine = [pk for pk in keys if crc32(str(pk).encode()) % shards == self._options.shard]
            for start in range(0, len(mine), size):
                yield self._column.at(mine[start : start + size])

    def _rewrite(self, rows: Sequence[Row]) -> None:
        looks = Looks(self._column)
        lost = self._replace(rows)
        # Somebody wrote these meanwhile, most likely under the newest key: a second look decides.
        for look in range(2, _LOOKS + 1):
            if not lost:
                return
            changed, same = looks.again(lost)
            for pk in same:
                self._leave(pk, UNCOMPARABLE)
            lost = self._held_and_replaced(changed) if look > _LOOKS_AT_FREE_ROWS else self._replace(changed)
        for row in lost:
            self._leave(row.pk, "others keep writing it; run this again")

    def _held_and_replaced(self, rows: Sequence[Row]) -> list[Row]:
        """Rewrite rows while nobody else may write them; return those that have to be looked at again."""
        keys, alias = [row.pk for row in rows], self._column.alias

        def work() -> tuple[list[Row], ReencryptionReport]:
            trial = _Rewriter(self._column, self._options, ReencryptionReport(), self._progress)
            with transaction.atomic(using=alias):
                return trial._replace(self._column.at(keys, lock=True)), trial._report

        try:
            lost, report = insist(alias, work, self._column.label)
        except HeldError as exc:
            for pk in keys:
                self._leave(pk, exc.reason)
            return []
        self._report.merge(report)
        return lost

    def _replace(self, rows: Sequence[Row]) -> list[Row]:
        """Rewrite what needs it; return the rows that somebody else had changed meanwhile."""
        newest = self._column.newest_keys(rows)
        swaps, moved = [], set()
        for record in self._reader.read(rows):
            if (new := self._resealed(record, newest)) is not None:
                swaps.append(Swap(record.row.pk, record.row.raw, new, record.row.place))
                moved |= {record.row.pk} if record.origin else set()
        outcome = Outcome(written=len(swaps)) if self._options.dry_run else replace_values(self._column, swaps)
        for pk, reason in outcome.refused.items():
            self._leave(pk, reason)
        lost = set(outcome.lost)
        self._count(outcome, len(moved - lost - outcome.refused.keys()))
        return [row for row in rows if row.pk in lost]

    def _count(self, outcome: Outcome, moved: int) -> None:
        label = self._column.label
        if outcome.written or outcome.lost:
            self._report.rewritten[label] += outcome.written
        if moved:
            self._report.moved[label] += moved
        self._report.conflicts += len(outcome.lost)

    def _leave(self, pk: Any, reason: str) -> None:
        self._report.bad.add(BadValue(self._column.label, str(pk), reason, ""))

    def _resealed(self, record: RowRecord, newest: dict[str | None, KeyMeta]) -> Any:
        """Return the value under the newest key, or None if it is to be left as it is."""
        field, row, origin = self._column.field, record.row, record.origin
        try:
            if row.fault:
                raise EncryptionError(row.fault)  # noqa: TRY301 - one way out for all
            if origin and not (self._options.moved and origin.partition):
                raise origin.mismatch(self._column, row)
            if not self._options.all and record.key == newest[row.partition] and field.format.is_own(row.raw):
                self._report.current[self._column.label] += 1
                return None
            return field.reseal(row.raw, row.partition, record.keys, origin=origin.partition if origin else None)
        except (DecryptionError, EncryptionError, KeyNotFoundError) as exc:
            self._leave(row.pk, f"{type(exc).__name__}: {exc}")
            return None

    def _keep_to_rate(self, count: int) -> None:
        self._seen += count
        if self._options.rate:
            ahead = self._seen / self._options.rate - (self._options.clock() - self._started)
            if ahead > 0:
                self._options.sleep(ahead)
