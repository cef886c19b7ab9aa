"""A field's column, for what goes over it row by row: records, and values that are not encrypted yet."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from django.db.models import F

from django_asherah.envelope.compact import is_compact
from django_asherah.envelope.records import KeyMeta, decode_row
from django_asherah.exceptions import DecryptionError, EncryptionError, InvalidRecordError
from django_asherah.fields.generic import Get_co, Set_contra
from django_asherah.fields.records import RawValue
from django_asherah.fields.saving import SavingMixin
from django_asherah.fields.sealed import NO_KEYS, Keys, PreparedValue
from django_asherah.fields.utf8 import decode_text

_RECORD_STARTS = ('{"Key":{', '{"Data":"')
"""How records begin: as Go, Rust, C# and this app write them, and in the other order, which Java may choose."""

_RECORD_MEMBER = '"ParentKeyMeta"'
"""In every record, and past a damaged or missing start."""


def may_be_plaintext(raw: object) -> bool:
    """Tell whether a column value can't be a record, whole or damaged.

    Only its text can tell, because a damaged record opens no more than a value does. So the rule errs on one side
    only: a value may be taken for a damaged record, which is an error that says so; a record that lost its end or is
    wrong in places is never taken for a value.
    """
    return isinstance(raw, str) and not raw.lstrip().startswith(_RECORD_STARTS) and _RECORD_MEMBER not in raw


class ColumnMixin(SavingMixin[Set_contra, Get_co]):
    """The part of an encrypted field that knows what may stand in its column: records, and for a while plaintext."""

    def raw_value(self) -> RawValue:
        """Return the expression that reads the column as it is: a query may select it, and nothing else."""
        return RawValue(F(self.name), output_field=self.format.column)

    def find_key(self, raw: Any, partition: str | None = None) -> KeyMeta | None:
        """Return the key that a column value names; None if it names none that the field could use."""
        if raw is None or self.is_plaintext(raw):
            return None
        with suppress(DecryptionError, EncryptionError):
            if not is_compact(raw):  # JSON names its key whosever it is.
                return decode_row(raw).key.parent_key_meta
            if self.template is None or partition is not None:
                return self.key_of(raw, partition)
        return None

    def is_plaintext(self, raw: Any) -> bool:
        """Tell whether a column value is one that was never encrypted, which only ``allow_plaintext`` allows."""
        if not self.allow_plaintext:
            return False
        if isinstance(raw, bytes) and self.format.is_binary and not is_compact(raw):
            raw = raw.decode(errors="replace")
        return may_be_plaintext(raw)

    def value_of(self, raw: Any, partition: str | None = None, keys: Keys = NO_KEYS) -> Any:
        """Return the value of what the column holds, which isn't NULL: a record or, if that is allowed, plaintext.

        Raises:
            AsherahError: it can't be opened, or is no value of this field.
        """
        if self.allow_plaintext and self.is_plaintext(raw):
            return self.load_plaintext(raw)
        return super().value_of(raw, partition, keys)

    def payload_of(self, raw: Any, partition: str | None = None, keys: Keys = NO_KEYS) -> bytes:
        """Return what would be sealed to hold the same as the column does: a record or, if that is allowed, plaintext.

        Raises:
            AsherahError: it can't be opened, or is no value of this field.
        """
        return self.from_plaintext(raw) if self.is_plaintext(raw) else super().payload_of(raw, partition, keys)

    def reseal(
        self, raw: Any, partition: str | None = None, keys: Keys = NO_KEYS, *, origin: str | None = None
    ) -> str | bytes:
        """Return the same value in a new record of the field's format, under the newest key.

        Args:
            raw: what the column holds.
            partition: the row's.
            keys: the keys that were loaded with it.
            origin: whose record it is, if not the row's.

        Raises:
            AsherahError: it can't be opened, or there is no key.
        """
        return self.seal(self.payload_of(raw, partition if origin is None else origin, keys), partition)

    def _as_loaded(self, record: str | bytes, partition: str | None, origin: str | None) -> PreparedValue:
        """Return what is written of a value that was not read: a plain one is sealed at last."""
        if self.is_plaintext(record):
            with suppress(InvalidRecordError):  # What is no value of this field stays for somebody to look at.
                return PreparedValue(payload=self.from_plaintext(record), partition=partition)
        return super()._as_loaded(record, partition, origin)

    def load_plaintext(self, raw: str | bytes) -> Any:
        """Return the value of a column value that is not encrypted yet.

        Raises:
            InvalidRecordError: it is no value of this field either.
        """
        try:
            return self.load_safely(_as_bytes(raw))
        except DecryptionError:
            pass
        raise InvalidRecordError("it is neither a record nor a value that was written before the field was encrypted")

    def from_plaintext(self, raw: str | bytes) -> bytes:
        """Return the payload that seals a column value which is not encrypted yet, exactly as it stands.

        Raises:
            InvalidRecordError: it is no value of this field.
        """
        self.load_plaintext(raw)
        return _as_bytes(raw)

    def to_plaintext(self, payload: bytes) -> str:
        """Return the text that an unencrypted column would hold: undoes :meth:`from_plaintext`.

        Raises:
            DecryptionError: the payload is no value of this field.
        """
        self.load_safely(payload)
        return decode_text(payload)


def _as_bytes(raw: str | bytes) -> bytes:
    return raw.encode() if isinstance(raw, str) else raw
