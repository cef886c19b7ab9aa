"""A field's column as what goes over it row by row sees it: records, and values that are not encrypted yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import models

from django_asherah import engine
from django_asherah.envelope.compact import is_compact
from django_asherah.envelope.records import KeyMeta
from django_asherah.exceptions import DecryptionError, InvalidRecordError
from django_asherah.fields.formats import RecordFormat
from django_asherah.fields.plaintext import may_be_plaintext
from django_asherah.fields.text import decode_text


class ColumnMixin:
    """The part of an encrypted field that opens, seals and converts what stands in its column."""

    partition: str | None
    allow_plaintext: bool
    format: RecordFormat
    _load: Callable[[bytes], Any]

    def open(self, raw: Any) -> Any:
        """Return the value of what the column holds, which isn't NULL.

        Raises:
            AsherahError: it can't be opened.
        """
        if self.allow_plaintext and self.is_plaintext(raw):
            return self.load_plaintext(raw)
        return self._load(engine.get_session(self.partition).decrypt(raw))

    def reseal(self, raw: Any) -> str | bytes:
        """Return the same value in a new record of the field's format, under the newest key.

        Raises:
            AsherahError: it can't be opened, or there is no key.
        """
        if self.is_plaintext(raw):
            return self.seal_plaintext(raw)
        session = engine.get_session(self.partition)
        return self.format.seal(session, session.decrypt(raw))

    def is_plaintext(self, raw: Any) -> bool:
        """Tell whether a column value is one that was never encrypted, which only ``allow_plaintext`` allows."""
        if not self.allow_plaintext:
            return False
        if isinstance(raw, bytes) and self.format.is_binary and not is_compact(raw):
            raw = raw.decode(errors="replace")
        return may_be_plaintext(raw)

    def wrote(self, raw: Any) -> bool:
        """Tell whether a column value is a record of the field's own format, if it is a record at all."""
        return not self.is_plaintext(raw) and self.format.wrote(raw)

    def seal_plaintext(self, text: str | bytes) -> str | bytes:
        """Return a column value that is not encrypted yet as a record, which seals it exactly as it stands.

        Raises:
            InvalidRecordError: it is no value of this field.
            KMSError, MetastoreError: there is no key.
        """
        self.load_plaintext(text)
        payload = text.encode() if isinstance(text, str) else text
        return self.format.seal(engine.get_session(self.partition), payload)

    def open_plaintext(self, raw: Any) -> str:
        """Return what a record seals as the text that an unencrypted column would hold: undoes :meth:`seal_plaintext`.

        Raises:
            AsherahError: it can't be opened, or seals no value of this field.
        """
        payload = engine.get_session(self.partition).decrypt(raw)
        self._load(payload)
        return decode_text(payload)

    def key_of(self, raw: Any) -> KeyMeta:
        """Return the intermediate key that a column value's record names.

        Raises:
            InvalidRecordError: it is not a record.
            PartitionMismatchError: it is a compact record of another partition.
        """
        return engine.get_session(self.partition).read(raw).key.parent_key_meta

    def raw_field(self) -> models.Field[Any, Any]:
        """Return a field that reads the column as it is."""
        return self.format.column

    def load_plaintext(self, text: str | bytes) -> Any:
        """Return the value of a column value that is not encrypted yet.

        Raises:
            InvalidRecordError: it is no value of this field either.
        """
        try:
            return self._load(text.encode() if isinstance(text, str) else text)
        except DecryptionError:
            pass
        raise InvalidRecordError("it is neither a record nor a value that was written before the field was encrypted")
