"""A value as a record and back, and the one place where a field meets the engine.

``dump`` makes a value's payload and ``seal`` a record of it; ``open`` makes the payload of a record and ``load`` the
value. Whose key that takes is a matter of the partition: the field's own, or the row's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, ClassVar

from django.core.exceptions import ImproperlyConfigured
from django.db import connection, models
from django.db.backends.base.base import BaseDatabaseWrapper

from django_asherah import engine
from django_asherah.envelope.keys import CryptoKey
from django_asherah.envelope.records import KeyMeta, printable
from django_asherah.envelope.session import Session
from django_asherah.exceptions import (
    AsherahError,
    DecryptionError,
    EncryptionError,
    KeyNotFoundError,
    PartitionMismatchError,
)
from django_asherah.fields.formats import RecordFormat
from django_asherah.fields.generic import Get_co, Set_contra
from django_asherah.fields.partitioned import PartitionedMixin
from django_asherah.fields.sealed import NO_KEYS, Keys, Literal, Loaded, SealedValue
from django_asherah.fields.texts import text_of
from django_asherah.fields.utf8 import decode_text, encode_text
from django_asherah.guard import allowed_partitions, outside_guard

_NO_TEXTS = (
    *(models.BinaryField, models.BooleanField, models.DateField, models.DecimalField, models.DurationField),
    *(models.FloatField, models.IntegerField, models.TimeField, models.UUIDField),
)
"""Whose columns yield no text: a ``from_db_value`` of a subclass would not know what to make of one."""


class SealingMixin(PartitionedMixin[Set_contra, Get_co]):
    """The part of an encrypted field that turns values into records and records into values.

    Every method that takes a ``partition`` takes the row's; None stands for the field's own, if it has one.
    """

    allow_plaintext: bool
    format: RecordFormat

    _plain_from_db_value: ClassVar[Callable[[Any, str, Any, Any], Any] | None]
    """The plain field's ``from_db_value``, if it has one and its column yields text."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        reads = getattr(super(SealingMixin, cls), "from_db_value", None)  # noqa: UP008 - of what follows in cls
        cls._plain_from_db_value = None if issubclass(cls, _NO_TEXTS) else reads
        # decode_text raises nothing but errors of ours, so there is nothing to translate.
        plain: Any = cls.load
        cls.load_safely = staticmethod(decode_text) if plain is decode_text else SealingMixin.load_safely  # type: ignore[method-assign]

    def dump(self, value: Any) -> bytes:
        """Return a value that isn't None as the bytes to encrypt.

        Raises:
            Exception: the field can't hold such a value. Any but an ``AsherahError`` becomes an ``EncryptionError``.
        """
        return encode_text(text_of(self.get_prep_value(value)))

    def load(self, payload: bytes) -> Any:
        """Return the value that :meth:`dump` made ``payload`` from, as the plain field would read its text.

        Raises:
            Exception: this field did not make it. Any but an ``AsherahError`` becomes a ``DecryptionError``.
        """
        text, read = decode_text(payload), type(self)._plain_from_db_value
        return self.to_python(text) if read is None else read(self, text, None, connection)

    def seal(self, payload: bytes, partition: str | None = None) -> str | bytes:
        """Return ``payload`` as a new record of the field's format, under the newest key.

        Raises:
            EncryptionError: the payload is too long.
            FieldError: only a row says the partition.
            KMSError, MetastoreError: there is no key, and none can be loaded or made.
        """
        return self.format.seal(self._session(partition), payload)

    def seal_for(
        self, alias: str, payload: bytes, partition: str | None = None, key: CryptoKey | None = None
    ) -> str | bytes:
        """Return :meth:`seal`'s record, which is to be stored in the database ``alias``.

        Args:
            alias: the database.
            payload: what is to be sealed.
            partition: the row's.
            key: the partition's newest key, if it was just loaded.

        Raises:
            EncryptionError: the record could outlive its key; or as :meth:`seal`.
            FieldError, KMSError, MetastoreError: as :meth:`seal`.
        """
        session = self._session(partition)
        record = self.format.seal(session, payload, key)
        if alias != engine.keys_alias:  # Most often it is, and a call costs more than this.
            engine.require_committed_key(key or session.newest_key(), alias)
        return record

    def require_lasting(self, alias: str, record: str | bytes, partition: str | None = None) -> None:
        """Refuse to let a record that was loaded go into the database ``alias`` if it could outlive its key.

        Raises:
            EncryptionError: it could.
            AsherahError: it can't be told, as the record can't be read or its key is not there.
        """
        if engine.get_keys_database() not in (None, alias):
            key = engine.get_factory().intermediate_keys.exact(self.key_of(record, partition))
            engine.require_committed_key(key, alias)

    def has_lost_key(self, sealed: SealedValue) -> bool:
        """Tell whether the key of what was loaded is gone by now, as when the transaction that made it was undone.

        Raises:
            KMSError, MetastoreError: it can't be told.
        """
        try:
            meta = self.key_of(sealed.record, sealed.loaded.partition)
            loaded = sealed.loaded.keys[meta]
            # Another key may stand under the same id and time since then.
            return engine.get_factory().intermediate_keys.exact(meta).record.key != loaded.record.key
        except KeyNotFoundError:
            return True
        except (DecryptionError, KeyError):
            return False

    def is_plaintext(self, raw: Any) -> bool:
        """Tell whether a column value is one that was never encrypted, which only ``allow_plaintext`` allows."""
        return False

    def require_partition(self, record: str | bytes, partition: str | None) -> None:
        """Refuse a record that names another partition than the row's.

        Raises:
            InvalidRecordError: it is not a record.
            PartitionMismatchError: it does.
        """
        readable = self._session(partition).partition.readable_ids
        named = self.key_of(record, partition).key_id
        if named not in readable:
            raise PartitionMismatchError(
                f"the record names key {printable(named)}, but the row's partition has key {printable(readable[0])}"
            )

    def open(self, record: str | bytes, partition: str | None = None, keys: Keys = NO_KEYS) -> bytes:
        """Return the payload of a record of whatever format.

        Args:
            record: it.
            partition: the row's.
            keys: the keys that were loaded with it, which are taken as they are.

        Raises:
            AsherahError: it can't be opened.
            FieldError: only a row says the partition.
        """
        return self._session(partition).decrypt(record, keys)

    def payload_of(self, raw: Any, partition: str | None = None, keys: Keys = NO_KEYS) -> bytes:
        """Return what would be sealed to hold the same as the column does.

        Raises:
            AsherahError: it can't be opened.
            FieldError: only a row says the partition.
        """
        return self.open(raw, partition, keys)

    def key_of(self, record: str | bytes, partition: str | None = None) -> KeyMeta:
        """Return the intermediate key that a record names.

        Raises:
            InvalidRecordError: it is not a record.
            PartitionMismatchError: it is a compact record of another partition.
            FieldError: only a row says the partition.
        """
        return self._session(partition).read(record).key.parent_key_meta

    def value_of(self, raw: Any, partition: str | None = None, keys: Keys = NO_KEYS) -> Any:
        """Return the value of what the column holds, which isn't NULL.

        Raises:
            AsherahError: it can't be opened, or seals no value of this field.
            FieldError: only a row says the partition.
        """
        # The payload gets no name: this is the one frame that an error keeps.
        return self.load_safely(self._session(partition).decrypt(raw, keys))

    def from_db_value(self, value: Any, expression: Any, connection: BaseDatabaseWrapper) -> Any:
        """Return the value that a record seals, where it doesn't go into an instance.

        Raises:
            AsherahError: it can't be opened; the message names the model and the field.
            FieldError: only a row says the partition, and the query does not select its columns.
        """
        if value is None:
            return None
        try:
            if value.__class__ is SealedValue:
                return self.value_of(value.record, value.loaded.partition, value.loaded.keys)
            if value.__class__ is Literal:
                return value.text
            return self.value_of(bytes(value) if isinstance(value, memoryview) else value)
        except AsherahError as exc:
            raise exc.at(self.full_name).with_traceback(None)  # noqa: B904 - it is the same error

    @property
    def record_kind(self) -> tuple[str | None, type, str]:
        """What two fields must share for the record of one to be a value of the other: partition, type and format."""
        return self.partition, type(self), self.format.name

    def found_with(self, keys: Keys, partition: str | None = None, *, is_lasting: bool = True) -> Loaded:
        """Return what there is to know of records that were loaded, with these keys, in rows of this partition."""
        session = self._loading_session(partition)
        return Loaded(keys, partition, session, self.record_kind, is_lasting)

    def _loading_session(self, partition: str | None) -> Session | None:
        if allowed_partitions.get() is not None or self.allow_plaintext or (self.template and partition is None):
            return None  # It is found when a value is read: a guard refuses what is read, and no row for it.
        with suppress(EncryptionError, ImproperlyConfigured):  # No key can have been of such a partition.
            return self._session(partition)
        return None

    def _session(self, partition: str | None) -> Session:
        if partition is None:
            if self.template is not None:
                raise self.needs_row()
            partition = self.partition
        return engine.get_session(partition)

    def load_safely(self, payload: bytes) -> Any:
        """Load a payload. An error from elsewhere may hold the value, and is replaced by one of ours."""
        try:
            return self.load(payload)
        except AsherahError:
            raise
        except Exception as exc:
            reason = type(exc).__name__
        raise DecryptionError(f"the record opens, but holds no value of this field ({reason}): another kind wrote it")


def load_newest_keys(partitions: Iterable[str | None]) -> dict[str, CryptoKey]:
    """Return the keys that new writes of these partitions use, loaded or made together.

    Raises:
        EncryptionError: a partition can't be part of a key id.
        KMSError, MetastoreError: a key can't be loaded or made.
        PartitionMismatchError: a guard does not allow one of them; no key was made.
    """
    wanted = [partition for partition in partitions if partition is not None]
    if (allowed := allowed_partitions.get()) is not None:
        for partition in wanted:
            if partition not in allowed:
                raise outside_guard(partition, allowed)
    return engine.get_factory().current_keys(wanted)


def load_keys(metas: Iterable[KeyMeta | None]) -> Keys:
    """Load those of these keys that are not cached yet, together; None stands for none.

    Returns:
        The keys that could be loaded, those that were cached included.

    Raises:
        MetastoreError: the key table can't be read.
    """
    return engine.get_factory().load_keys(meta for meta in metas if meta is not None)
