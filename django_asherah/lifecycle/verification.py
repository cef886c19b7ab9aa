"""Verify: prove that every key opens in every region, and that every value opens."""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from hmac import compare_digest
from itertools import islice
from typing import Any

from django.db import connections

from django_asherah import engine
from django_asherah.envelope.aead import wipe
from django_asherah.envelope.partition import KeyKind
from django_asherah.envelope.records import KeyMeta
from django_asherah.exceptions import AsherahError, DecryptionError, KeyNotFoundError, KMSError
from django_asherah.kms.regional import RegionalKMS, ask_regions
from django_asherah.lifecycle.columns import Column, encrypted_columns
from django_asherah.lifecycle.context import Context, get_context
from django_asherah.lifecycle.keys import KeyInfo, Listing, keys_of_id

BATCH = 1000
MOST_LISTED = 1000
"""Bad values that a report lists one by one; the others are only counted."""


@dataclass(slots=True)
class KeyReport:
    """What was found of the keys: how many were proven, and each problem as (key or region, reason)."""

    system_keys: int = 0
    intermediate_keys: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class BadValue:
    """A value that does not open."""

    column: str
    pk: str
    reason: str
    key: str


@dataclass(slots=True)
class DataReport:
    """What was found of the data.

    Attributes:
        columns: values proven, by column.
        keys: values that need each intermediate key, bad ones too: none of these may be dropped.
        system_keys: the same for each system key.
        plaintext: values not encrypted yet, by column: only where the field allows it.
        bad: the first bad values.
        bad_count: all of them.
        lost_keys: keys that no KMS unwraps, with the reason.
    """

    columns: Counter[str] = field(default_factory=Counter)
    keys: Counter[KeyMeta] = field(default_factory=Counter)
    system_keys: Counter[KeyMeta] = field(default_factory=Counter)
    plaintext: Counter[str] = field(default_factory=Counter)
    bad: list[BadValue] = field(default_factory=list)
    bad_count: int = 0
    lost_keys: dict[KeyMeta, str] = field(default_factory=dict)

    @property
    def read(self) -> int:
        """How many values were looked at."""
        return self.columns.total() + self.plaintext.total() + self.bad_count

    def add_bad(self, value: BadValue) -> None:
        """Count a bad value, and list it if there is room."""
        self.bad_count += 1
        if len(self.bad) < MOST_LISTED:
            self.bad.append(value)

    def merge(self, other: DataReport) -> None:
        """Add what another process found."""
        self.columns += other.columns
        self.keys += other.keys
        self.plaintext += other.plaintext
        self.bad += other.bad[: MOST_LISTED - len(self.bad)]
        self.bad_count += other.bad_count


def verify_keys(progress: Callable[[Listing], Iterable[KeyInfo]] = iter) -> KeyReport:
    """Unwrap every system key in each region alone, ask each region of its master key, open every intermediate key.

    Raises:
        ImproperlyConfigured: the settings are wrong.
        MetastoreError: the metastore can't list its keys, or fails.
    """
    context = get_context()
    report = KeyReport()
    _check_regions(context, report)
    listing = Listing(context)
    keys = (key for key in progress(listing) if key.ours)
    while batch := list(islice(keys, BATCH)):
        context.factory.load_keys(key.meta for key in batch if key.kind is KeyKind.INTERMEDIATE)
        for key in batch:
            _verify_key(context, key, report)
    report.problems += listing.unreadable
    return report


def verify_key(meta: KeyMeta) -> KeyReport:
    """Unwrap one system key in each region alone; or one intermediate key's system key so, and open it.

    Raises:
        ImproperlyConfigured: the settings are wrong.
        MetastoreError: the metastore can't list its keys, or fails.
    """
    context = get_context()
    report = KeyReport()
    try:
        key = _find(context, meta)
        for each in [_find(context, key.parent), key] if key.parent else [key]:
            _verify_key(context, each, report)
    except KeyNotFoundError as exc:
        report.problems.append((str(meta), str(exc)))
    return report


def _find(context: Context, meta: KeyMeta) -> KeyInfo:
    for key in keys_of_id(context, meta.key_id):
        if key.meta == meta:
            return key
    raise KeyNotFoundError(f"there is no readable key {meta}")


def _check_regions(context: Context, report: KeyReport) -> None:
    kms = context.factory.kms
    if isinstance(kms, RegionalKMS):
        failures = ask_regions(kms, kms.check_region)
        report.problems += [(region, str(cause)) for region, cause in failures.items()]


def _verify_key(context: Context, key: KeyInfo, report: KeyReport) -> None:
    report.problems += [(str(key.meta), problem) for problem in key.problems]
    try:
        if key.kind is KeyKind.SYSTEM:
            report.problems += [(str(key.meta), problem) for problem in _unwrap_everywhere(context, key.meta)]
            report.system_keys += 1
        else:
            context.factory.intermediate_keys.exact(key.meta)
            report.intermediate_keys += 1
    except AsherahError as exc:
        report.problems.append((str(key.meta), str(exc)))


def _unwrap_everywhere(context: Context, meta: KeyMeta) -> list[str]:
    """Return what went wrong in each region."""
    row, kms = context.table.read(meta), context.factory.kms
    if row is None:
        raise KeyNotFoundError(f"key {meta} was deleted meanwhile")
    wrapped = row.record().key
    if isinstance(kms, RegionalKMS):
        return _unwrap_in_each_region(kms, wrapped)
    wipe(kms.decrypt_key(wrapped))
    return []


def _unwrap_in_each_region(kms: RegionalKMS, wrapped: bytes) -> list[str]:
    keys: dict[str, bytearray] = {}

    def unwrap(region: str) -> None:
        keys[region] = kms.decrypt_key_in(region, wrapped)

    try:
        problems = [str(cause) for cause in ask_regions(kms, unwrap).values()]
        first = next(iter(keys.values()), b"")
        others = [region for region, key in keys.items() if not compare_digest(key, first)]
        return problems + [f"{region} unwraps another key than the regions before it" for region in others]
    finally:
        for key in keys.values():
            wipe(key)


def verify_data(
    names: Iterable[str] = (),
    *,
    alias: str | None = None,
    sample: int | None = None,
    processes: int = 1,
    progress: Callable[[int], None] = lambda count: None,
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
            for batch in column.sample(sample, BATCH):
                _verify_rows(column, batch, report)
                progress(len(batch))
    elif processes > 1:
        _verify_in_processes(columns, processes, report, progress)
    else:
        for column in columns:
            _verify_range(column, None, None, report, progress)
    _count_system_keys(report)
    return report


def _verify_range(
    column: Column, after: Any, until: Any, report: DataReport, progress: Callable[[int], None]
) -> DataReport:
    for batch in column.rows(BATCH, after, until):
        _verify_rows(column, batch, report)
        progress(len(batch))
    return report


def _verify_rows(column: Column, rows: Sequence[tuple[Any, Any]], report: DataReport) -> None:
    for pk, raw, meta in column.loaded(rows):
        _verify_value(column, pk, raw, meta, report)


def _verify_value(column: Column, pk: Any, raw: Any, meta: KeyMeta | None, report: DataReport) -> None:
    try:
        if meta is None:
            column.field.open(raw)
            report.plaintext[column.label] += 1
            return
        report.keys[meta] += 1
        if meta in report.lost_keys:
            raise KMSError(report.lost_keys[meta])  # noqa: TRY301 - one way out for all
        column.field.open(raw)
        report.columns[column.label] += 1
    except (DecryptionError, KeyNotFoundError, KMSError) as exc:
        if meta is not None and isinstance(exc, KMSError):
            # Asking every region once a key is enough; once a value would take for ever.
            report.lost_keys.setdefault(meta, str(exc))
        report.add_bad(BadValue(column.label, str(pk), f"{type(exc).__name__}: {exc}", str(meta or "")))


def _count_system_keys(report: DataReport) -> None:
    for meta, record in engine.get_factory().metastore.load_many(list(report.keys)).items():
        if record.parent_key_meta is not None:
            report.system_keys[record.parent_key_meta] += report.keys[meta]


def _verify_in_processes(
    columns: list[Column], processes: int, report: DataReport, progress: Callable[[int], None]
) -> None:
    tasks = [
        (place, after, until)
        for place, column in enumerate(columns)
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
    place, after, until = task
    return _verify_range(_COLUMNS[place], after, until, DataReport(), lambda count: None)
