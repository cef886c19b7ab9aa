"""Verify the data: prove that every value opens."""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from django.db import connections

from django_asherah import engine
from django_asherah.envelope.records import KeyMeta
from django_asherah.exceptions import DecryptionError, KeyNotFoundError, KMSError
from django_asherah.lifecycle.bad_values import BadValue, BadValues
from django_asherah.lifecycle.columns import Column, Row, encrypted_columns
from django_asherah.lifecycle.progress import Progress, tell_nobody

ROWS_PER_READ = 1000


@dataclass(slots=True)
class DataReport:
    """What was found of the data.

    Attributes:
        columns: values proven, by column.
        keys: values that need each intermediate key, bad ones too: none of these may be dropped.
        system_keys: the same for each system key.
        plaintext: values not encrypted yet, by column: only where the field allows it.
        bad: values that do not open.
        lost_keys: keys that no KMS unwraps, with the reason.
    """

    columns: Counter[str] = field(default_factory=Counter)
    keys: Counter[KeyMeta] = field(default_factory=Counter)
    system_keys: Counter[KeyMeta] = field(default_factory=Counter)
    plaintext: Counter[str] = field(default_factory=Counter)
    bad: BadValues = field(default_factory=BadValues)
    lost_keys: dict[KeyMeta, str] = field(default_factory=dict)

    @property
    def read(self) -> int:
        """How many values were looked at."""
        return self.columns.total() + self.plaintext.total() + self.bad.total

    def merge(self, other: DataReport) -> None:
        """Add what another process found."""
        self.columns += other.columns
        self.keys += other.keys
        self.plaintext += other.plaintext
        self.bad.merge(other.bad)


def verify_data(
    names: Iterable[str] = (),
    *,
    alias: str | None = None,
    sample: int | None = None,
    processes: int = 1,
    progress: Progress = tell_nobody,
) -> DataReport:
    """Open every value of every encrypted column, in constant memory.

    Args:
        names: ``app.Model`` or ``app.Model.field``; all if empty.
        alias: the database to read; what the routers say if None.
        sample: only so many rows of each column, taken at random.
        processes: how many processes share the work.
        progress: is told how many more values were looked at.

    Raises:
        UnknownColumnError: a name is not one of an encrypted column.
    """
    engine.get_factory().clear()
    report = DataReport()
    columns = encrypted_columns(names, alias)
    if sample is not None:
        for column in columns:
            for batch in column.sample(sample, ROWS_PER_READ):
                _verify_rows(column, batch, report)
                progress(len(batch))
    elif processes > 1:
        _verify_in_processes(columns, processes, report, progress)
    else:
        for column in columns:
            _verify_range(column, None, None, report, progress)
    _count_system_keys(report)
    return report


def _verify_range(column: Column, after: Any, until: Any, report: DataReport, progress: Progress) -> DataReport:
    for batch in column.rows(ROWS_PER_READ, after, until):
        _verify_rows(column, batch, report)
        progress(len(batch))
    return report


def _verify_rows(column: Column, rows: Sequence[Row], report: DataReport) -> None:
    for row, meta in column.with_keys_loaded(rows):
        _verify_value(column, row, meta, report)


def _verify_value(column: Column, row: Row, meta: KeyMeta | None, report: DataReport) -> None:
    try:
        if meta is None:
            column.field.value_of(row.raw)
            report.plaintext[column.label] += 1
            return
        report.keys[meta] += 1
        if meta in report.lost_keys:
            raise KMSError(report.lost_keys[meta])  # noqa: TRY301 - one way out for all
        column.field.value_of(row.raw)
        report.columns[column.label] += 1
    except (DecryptionError, KeyNotFoundError, KMSError) as exc:
        if meta is not None and isinstance(exc, KMSError):
            # Asking every region once per key is enough; once per value would never end.
            report.lost_keys.setdefault(meta, str(exc))
        report.bad.add(BadValue(column.label, str(row.pk), f"{type(exc).__name__}: {exc}", str(meta or "")))


def _count_system_keys(report: DataReport) -> None:
    for meta, record in engine.get_factory().metastore.load_many(list(report.keys)).items():
        if record.parent_key_meta is not None:
            report.system_keys[record.parent_key_meta] += report.keys[meta]


def _verify_in_processes(columns: list[Column], processes: int, report: DataReport, progress: Progress) -> None:
    tasks = [
        (number, after, until)
        for number, column in enumerate(columns)
        for after, until in _pieces(column.boundaries(processes * 4))
    ]
    # A forked child inherits everything but connections, which it must not share.
    connections.close_all()
    _COLUMNS[:] = columns
    with ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), _end_when_interrupted) as pool:
        for part in pool.map(_verify_piece, tasks):
            report.merge(part)
            progress(part.read)


_COLUMNS: list[Column] = []


def _end_when_interrupted() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _pieces(boundaries: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip([None, *boundaries], [*boundaries, None], strict=True))


def _verify_piece(task: tuple[int, Any, Any]) -> DataReport:
    number, after, until = task
    return _verify_range(_COLUMNS[number], after, until, DataReport(), tell_nobody)
