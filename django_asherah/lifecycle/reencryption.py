"""Re-encrypt: rewrite values under the newest keys, in a live table, with nothing lost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from django.db import OperationalError, connections, transaction

from django_asherah import engine
from django_asherah.envelope.records import KeyMeta
from django_asherah.exceptions import DecryptionError, EncryptionError, KeyNotFoundError
from django_asherah.lifecycle.bad_values import BadValue, BadValues
from django_asherah.lifecycle.columns import Column, Row, encrypted_columns
from django_asherah.lifecycle.progress import Progress, tell_nobody
from django_asherah.lifecycle.records import RecordReader, RowRecord
from django_asherah.lifecycle.swap import ROWS_PER_TRANSACTION, Swap, swap_values

_LOOKS = 20
_LOOKS_AT_FREE_ROWS = 3
"""How often a row is read without holding it. Writers wait for a held one, so that it is done whatever they do."""

_GAVE_WAY = frozenset({"40P01", "40001", 1213})
"""PostgreSQL's SQLSTATE of a deadlock and of a failed serialization, MySQL's ``ER_LOCK_DEADLOCK``."""


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
    """
    options = options or Options()
    engine.get_factory().clear()
    report = ReencryptionReport()
    for column in encrypted_columns(names, alias):
        _Rewriter(column, options, report, progress).run()
    return report


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
        for rows in self._batches():
            self._rewrite(rows)
            self._progress(len(rows))
            self._keep_to_rate(len(rows))

    def _batches(self) -> Iterator[list[Row]]:
        size, shards = self._options.batch, self._options.shards
        if shards == 1:
            yield from self._column.rows(size)
            return
        for keys in self._column.keys(size * shards):
            mine = [pk for pk in keys if crc32(str(pk).encode()) % shards == self._options.shard]
            for start in range(0, len(mine), size):
                yield self._column.at(mine[start : start + size])

    def _rewrite(self, rows: Sequence[Row]) -> None:
        lost = self._replace(rows)
        # Somebody wrote these meanwhile, most likely under the newest key: a second look decides.
        for look in range(2, _LOOKS + 1):
            if not lost:
                return
            lost = self._held_and_replaced(lost) if look > _LOOKS_AT_FREE_ROWS else self._replace(self._column.at(lost))
        for pk in lost:
            self._report.bad.add(BadValue(self._column.label, str(pk), "others keep writing it; run this again", ""))

    def _held_and_replaced(self, keys: list[Any]) -> list[Any]:
        """Rewrite rows while nobody else may write them; return the primary keys that have to be looked at again."""
        return self._in_transaction(lambda: self._replace(self._column.at(keys, lock=True)), keys)

    def _replace(self, rows: Sequence[Row]) -> list[Any]:
        """Rewrite what needs it; return the primary keys of the rows that somebody else had changed meanwhile."""
        newest = self._column.newest_keys(rows)
        swaps, moved = [], set()
        for record in self._reader.read(rows):
            if (new := self._resealed(record, newest)) is not None:
                swaps.append(Swap(record.row.pk, record.row.raw, new, record.row.place))
                moved |= {record.row.pk} if record.origin else set()
        if not swaps:
            return []
        lost = [] if self._options.dry_run else self._swap(swaps)
        self._report.rewritten[self._column.label] += len(swaps) - len(lost)
        if moved := moved.difference(lost):
            self._report.moved[self._column.label] += len(moved)
        self._report.conflicts += len(lost)
        return lost

    def _swap(self, swaps: list[Swap]) -> list[Any]:
        """Write one batch; return the primary keys of the rows that it has not written."""
        connection = connections[self._column.alias]
        return self._in_transaction(lambda: swap_values(connection, self._column, swaps), [swap.pk for swap in swaps])

    def _in_transaction(self, work: Callable[[], list[Any]], keys: list[Any]) -> list[Any]:
        """Return what ``work`` returns, or the keys if the database rolled it back as a whole for somebody else."""
        outermost = not connections[self._column.alias].in_atomic_block
        try:
            with transaction.atomic(using=self._column.alias):
                return work()
        except OperationalError as exc:
            if outermost and _gave_way(exc):
                return keys
            raise

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
            self._report.bad.add(BadValue(self._column.label, str(row.pk), f"{type(exc).__name__}: {exc}", ""))
            return None

    def _keep_to_rate(self, count: int) -> None:
        self._seen += count
        if self._options.rate:
            ahead = self._seen / self._options.rate - (self._options.clock() - self._started)
            if ahead > 0:
                self._options.sleep(ahead)


def _gave_way(exc: OperationalError) -> bool:
    """Tell whether the database broke a transaction off in favour of another one, so that it may be done again."""
    code = getattr(exc.__cause__, "sqlstate", None) or exc.args[0]
    return code in _GAVE_WAY
