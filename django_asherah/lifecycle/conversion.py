"""Conversion: a populated column of plain values becomes one of records, or the other way round, in place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from django.db import DatabaseError, OperationalError, connections
from django.dispatch import Signal

from django_asherah import audit, signals
from django_asherah.exceptions import (
    AsherahError,
    DecryptionError,
    EncryptionError,
    InvalidRecordError,
    KeyNotFoundError,
)
from django_asherah.lifecycle.bad_values import BadValue, BadValues
from django_asherah.lifecycle.columns import Column, Row
from django_asherah.lifecycle.database_errors import reason_of
from django_asherah.lifecycle.exact_session import exact_session
from django_asherah.lifecycle.ledger import Ledger
from django_asherah.lifecycle.looks import UNCOMPARABLE, Looks
from django_asherah.lifecycle.plain_column import PlainColumn
from django_asherah.lifecycle.progress import Progress, tell_nobody
from django_asherah.lifecycle.records import RecordReader, RowRecord
from django_asherah.lifecycle.replacing import replace_values
from django_asherah.lifecycle.swap import ROWS_PER_TRANSACTION, Swap

_MOST_PASSES = 10
_MOST_LOOKS = 100
_MOST_NAMED = 20


class _Conversion(ABC):
    """Goes over a column until a whole pass finds nothing to convert, because others may write meanwhile.

    A value is replaced only if it still is, byte for byte, what was read, in a row that still says the same partition.
    What this conversion wrote is known by the ledger, and by nothing else.
    """

    action: str
    error: type[AsherahError]
    signal: Signal
    seals: bool

    def __init__(self, column: Column, ledger: Ledger, progress: Progress) -> None:
        self._column = column
        self._field = column.field
        self._reader = RecordReader(column)
        self._ledger = ledger
        self._progress = progress
        self._converted = 0
        self._bad = BadValues()

    @abstractmethod
    def replacement(self, record: RowRecord) -> Any:
        """Return what replaces a value that this conversion did not write, or None to leave it.

        Raises:
            DecryptionError, KeyNotFoundError: it has to be left, and the conversion can't be finished with it.
        """

    @abstractmethod
    def give_up(self) -> None:
        """Say that others keep writing what has to be converted, unless it may stay.

        Raises:
            EncryptionError, DecryptionError: it may not.
        """

    def run(self) -> int:
        """Convert every value; return how many were.

        Raises:
            EncryptionError, DecryptionError: some had to be left as they were, or others keep writing.
        """
        action = f"column_{self.action}ed"
        with audit.recorded(self.signal, action, self._details, has_problems=lambda: bool(self._bad)):
            with exact_session(connections[self._column.alias]):
                self._ledger.create()
                for _ in range(_MOST_PASSES):
                    self._bad = BadValues()
                    if not self._pass():
                        break
                else:
                    self.give_up()
            if self._bad:
                raise self.error(self._complaint())
        return self._converted

    def _details(self) -> dict[str, Any]:
        where = {"column": self._column.label, "database": self._column.alias}
        return {**where, "values": self._converted, "bad": self._bad.total}

    def _pass(self) -> int:
        before = self._converted
        for rows in self._column.rows(ROWS_PER_TRANSACTION, until=self._column.last_key()):
            self._settle(rows)
            self._progress(len(rows))
        return self._converted - before

    def _settle(self, rows: list[Row]) -> None:
        """Convert a batch, and look again at what others have changed meanwhile."""
        looks = Looks(self._column)
        lost = self._convert(rows)
        for _ in range(_MOST_LOOKS):
            if not lost:
                return
            changed, same = looks.again(lost)
            for pk in same:
                self._leave(pk, UNCOMPARABLE)
            lost = self._convert(changed)
        for row in lost:
            self._leave(row.pk, "others keep writing it")

    def _convert(self, rows: list[Row]) -> list[Row]:
        """Convert a batch; return the rows that had changed since they were read."""
        known = self._ledger.known(rows) if rows else set()
        if not self._follows_rows:
            rows = [row for row in rows if row.pk not in known]
        if self.seals:
            self._column.newest_keys(rows)
        swaps = self._fitting(self._swaps(rows, known))
        outcome = replace_values(self._column, swaps, self._note)
        for pk, reason in outcome.refused.items():
            self._leave(pk, reason)
        self._converted += outcome.written
        lost = set(outcome.lost)
        return [row for row in rows if row.pk in lost]

    def _swaps(self, rows: list[Row], known: set[Any]) -> list[Swap]:
        return [
            Swap(record.row.pk, record.row.raw, new, record.row.place)
            for record in self._reader.read(rows)
            if (new := self._replacement(record, is_own=record.row.pk in known)) is not None
        ]

    def _fitting(self, swaps: list[Swap]) -> list[Swap]:
        """Return the swaps whose new value the column can hold, and leave the others."""
        return swaps

    def _note(self, swaps: list[Swap]) -> None:
        self._ledger.add([Row(swap.pk, swap.after) for swap in swaps])

    @property
    def _follows_rows(self) -> bool:
        """Whether even what this conversion wrote may have to be replaced, as its row can move."""
        return self.seals and self._field.template is not None

    def _replacement(self, record: RowRecord, *, is_own: bool) -> Any:
        if record.row.fault:
            self._leave(record.row.pk, record.row.fault)
            return None
        try:
            return self._resealed(record) if is_own else self.replacement(record)
        except (DecryptionError, KeyNotFoundError) as exc:
            self._leave(record.row.pk, str(exc))
            return None

    def _resealed(self, record: RowRecord) -> Any:
        """Return what replaces a record that this conversion wrote for another partition, or None to leave it."""
        if record.origin is None:
            return None
        row, partition = record.row, record.origin.partition
        return self._field.reseal(row.raw, row.partition, record.keys, origin=partition)

    def _leave(self, pk: Any, reason: str) -> None:
        self._bad.add(BadValue(self._column.label, str(pk), reason, ""))

    def _complaint(self) -> str:
        named = "; ".join(f"pk={bad.pk}: {bad.reason}" for bad in self._bad[:_MOST_NAMED])
        more = f"; and {self._bad.total - _MOST_NAMED} more" if self._bad.total > _MOST_NAMED else ""
        return (
            f"{self._column.label}: {self._bad.total} values could not be {self.action}ed and are left as they were; "
            f"all others are done. Fix these and migrate again: {named}{more}"
        )


class _Encryption(_Conversion):
    action = "encrypt"
    signal = signals.data_encrypted
    error = EncryptionError
    seals = True

    def replacement(self, record: RowRecord) -> Any:
        field, row = self._field, record.row
        if field.allow_plaintext:
            if field.is_plaintext(row.raw):
                return field.seal(field.from_plaintext(row.raw), row.partition)
            _refuse_stray(self._column, record)
            # The code that already runs with this field wrote it, or it is damaged.
            field.value_of(row.raw, row.partition, record.keys)
            return None
        # Where the row says the partition, it may have said another when a record was written.
        elsewhere = record.origin.partition if record.origin and field.template else None
        if self._is_authentic(record, elsewhere):
            whose = f"partition {elsewhere!r}" if elsewhere else "this very partition"
            raise InvalidRecordError(
                f"it is a record of {whose} already. If the code with the encrypted field is running, give that field "
                "allow_plaintext=True; if the column was encrypted before, use --fake"
            )
        return field.seal(field.from_plaintext(row.raw), row.partition)

    def give_up(self) -> None:
        if not self._field.allow_plaintext:
            raise EncryptionError(
                f"{self._column.label}: others keep writing the other kind of value. Stop the code that does, or let "
                "the encrypted field have allow_plaintext=True, and migrate again: it goes on where it stopped"
            )

    def _is_authentic(self, record: RowRecord, elsewhere: str | None) -> bool:
        if record.key is None or (record.origin is not None and elsewhere is None):
            return False  # Most values: to open one as a record would report it as one that was damaged.
        try:
            self._field.open(record.row.raw, elsewhere or record.row.partition, record.keys)
        except (DecryptionError, KeyNotFoundError):
            return False
        return True


class _Decryption(_Conversion):
    action = "decrypt"
    signal = signals.data_decrypted
    error = DecryptionError
    seals = False

    def __init__(self, column: Column, ledger: Ledger, progress: Progress, plain: PlainColumn | None) -> None:
        super().__init__(column, ledger, progress)
        self._plain = plain

    def replacement(self, record: RowRecord) -> Any:
        row = record.row
        if self._field.is_plaintext(row.raw):
            return None
        _refuse_stray(self._column, record)
        return self._field.to_plaintext(self._field.open(row.raw, row.partition, record.keys))

    def give_up(self) -> None:
        # allow_plaintext lets the encrypted field read values, and not the plain one records.
        raise DecryptionError(
            f"{self._column.label}: others keep writing records. Stop the code that does, and migrate again: it goes "
            "on where it stopped"
        )

    def _fitting(self, swaps: list[Swap]) -> list[Swap]:
        if self._plain is None or not swaps:
            return swaps
        try:
            unfit = self._plain.unfit([swap.after for swap in swaps])
        except DatabaseError as exc:
            failure = reason_of(exc)
        else:
            for place, reason in unfit.items():
                self._leave(swaps[place].pk, reason)
            return [swap for place, swap in enumerate(swaps) if place not in unfit]
        # Not from within the handler: the values would hang on it.
        raise OperationalError(f"{self._column.label}: {failure}. Nothing was changed")


def _refuse_stray(column: Column, record: RowRecord) -> None:
    if record.origin is not None:
        raise record.origin.mismatch(column, record.row)


def encrypt_column(column: Column, progress: Progress = tell_nobody) -> int:
    """Turn every plain value of a column of text into a record; return how many were.

    Run again after an interruption, it goes on. NULL stays NULL; everything else is encrypted, whatever it looks like.
    What opens as a record of the field's partition, or of any if the row says it, though this function did not write
    it, is ambiguous: with the field's ``allow_plaintext`` it stays, without it it is refused, because the one may take
    a stranger's record for a value and the other encrypt a value twice. The value of a row that says no partition is
    left, too.

    Raises:
        EncryptionError: some values are ambiguous or no values of this field, and are left as they were.
        KMSError, MetastoreError: there is no key.
        OperationalError: the database failed, or others held it.
    """
    return _Encryption(column, Ledger(column, "encrypt"), progress).run()


def decrypt_column(column: Column, progress: Progress = tell_nobody, plain: PlainColumn | None = None) -> int:
    """Turn every record of a column of text into a plain value; return how many were.

    Args:
        column: which.
        progress: is told how many more values were looked at.
        plain: what the column becomes; as it is if None.

    Raises:
        DecryptionError: some values don't open or don't fit, and are left as they were.
        KMSError, MetastoreError: a key can't be loaded.
        OperationalError: the database failed, or others held it.
    """
    return _Decryption(column, Ledger(column, "decrypt"), progress, plain).run()
