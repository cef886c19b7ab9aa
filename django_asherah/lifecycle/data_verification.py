"""Verify the data: prove that every value opens."""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from django.db import connections

from django_asherah import audit, engine, signals
from django_asherah.envelope.records import KeyMeta
from django_asherah.exceptions import DecryptionError, EncryptionError, KeyNotFoundError, KMSError
from django_asherah.lifecycle.bad_values import BadValue, BadValues
from django_asherah.lifecycle.columns import Column, Row, encrypted_columns, names_of
from django_asherah.lifecycle.key_counts import KeyCounts
from django_asherah.lifecycle.progress import Progress, tell_nobody
from django_asherah.lifecycle.records import RecordReader, RowRecord

ROWS_PER_READ = 1000


@dataclass(slots=True)
class DataReport:
    """What was found of the data.

    Attributes:
        columns: values proven, by column.
        keys: values that need each of the oldest intermediate keys, bad ones too: none of these may be dropped.
        system_keys: the same for every system key.
        plaintext: values not encrypted yet, by column: only where the field allows it.
        bad: values that do not open.
        lost_keys: system keys that no KMS unwraps, with the reason.
    """

    columns: Counter[str] = field(default_factory=Counter)
    keys: KeyCounts = field(default_factory=KeyCounts)
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
        self.keys.merge(other.keys)
        self.system_keys += other.system_keys
        self.plaintext += other.plaintext
        self.bad.merge(other.bad)


@engine.own_keys()
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
    report = DataReport()
    columns = encrypted_columns(names, alias)
    with _recorded(columns, sample, report):
        if sample is not None:
            for column in columns:
                _verify_batches(column, column.sample(sample, ROWS_PER_READ), report, progress)
        elif processes > 1:
            _verify_in_processes(columns, processes, report, progress)
        else:
            for column in columns:
                _verify_range(column, None, None, report, progress)
    report.keys.cut()
    return report


def _recorded(columns: Sequence[Column], sample: int | None, report: DataReport) -> AbstractContextManager[None]:
    return audit.recorded(
        signals.data_verified,
        "verified_data",
        lambda: {
            **names_of(columns),
            "opened": report.columns.total(),
            "plaintext": report.plaintext.total(),
            "bad": report.bad.total,
            "sample": sample,
        },
        has_problems=lambda: bool(report.bad.total),
    )


def _verify_range(column: Column, after: Any, until: Any, report: DataReport, progress: Progress) -> DataReport:
    _verify_batches(column, column.rows(ROWS_PER_READ, after, until), report, progress)
    return report


def _verify_batches(column: Column, batches: Iterable[list[Row]], report: DataReport, progress: Progress) -> None:
    reader = RecordReader(column)
    for batch in batches:
        records = list(reader.read(batch))
        parents = _parents(records)
        for record in records:
            _verify_value(column, record, parents, report)
        progress(len(batch))


def _parents(records: Sequence[RowRecord]) -> dict[KeyMeta | None, KeyMeta]:
    """Return the system keys of the keys that these records name, as far as the key table has them."""
    named = {record.key: record.keys.get(record.key) for record in records if record.key is not None}
    found = {key: opened.record for key, opened in named.items() if opened is not None}
    if closed := [key for key in named if key not in found]:
        found |= engine.get_factory().metastore.load_many(closed)
    return {key: stored.parent_key_meta for key, stored in found.items() if stored.parent_key_meta is not None}


def _verify_value(
    column: Column, record: RowRecord, parents: Mapping[KeyMeta | None, KeyMeta], report: DataReport
) -> None:
    row, key, parent = record.row, record.key, parents.get(record.key)
    if key is not None:
        report.keys.add(key)
    if parent is not None:
        report.system_keys[parent] += 1
    try:
        if parent in report.lost_keys:
            raise KMSError(f"intermediate key {key}: {report.lost_keys[parent]}")  # noqa: TRY301 - one way out for all
        _open(column, record)
    except (DecryptionError, EncryptionError, KeyNotFoundError, KMSError) as exc:
        if parent is not None and isinstance(exc, KMSError):
            # Asking every region once per system key is enough; once per value would never end.
            report.lost_keys.setdefault(parent, str(exc).removeprefix(f"intermediate key {key}: "))
        report.bad.add(BadValue(column.label, str(row.pk), f"{type(exc).__name__}: {exc}", str(key or "")))
        return
    (report.plaintext if key is None else report.columns)[column.label] += 1


def _open(column: Column, record: RowRecord) -> None:
    if record.row.fault:
        raise EncryptionError(record.row.fault)
    if record.origin is not None:
        raise record.origin.mismatch(column, record.row)
    column.field.value_of(record.row.raw, record.row.partition, record.keys)


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
