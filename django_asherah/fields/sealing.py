"""A value's way into its column and back, and the one place where a field meets the engine.

Into it: :meth:`~SealingMixin.pre_save` takes the attribute's value, ``dump`` makes its payload, ``seal`` a record, and
``get_db_prep_save`` hands the record to the database. Back: ``from_db_value`` takes the record, ``open`` makes the
payload, ``load`` the value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.expressions import BaseExpression, Combinable
from msgspec import Struct

from django_asherah import engine
from django_asherah.envelope.records import KeyMeta
from django_asherah.exceptions import AsherahError, DecryptionError, EncryptionError, KeyNotFoundError
from django_asherah.fields.formats import RecordFormat
from django_asherah.fields.generic import GenericField, Get_co, Set_contra
from django_asherah.fields.guards import require_records
from django_asherah.fields.unreadable import Unreadable, is_tolerated
from django_asherah.fields.utf8 import decode_text, encode_text


class SealedValue(Struct, gc=False):
    """A record on its way from ``pre_save`` to the database: never to be encrypted again."""

    record: str | bytes

    def __repr__(self) -> str:
        return "<SealedValue>"


_VALUES = frozenset({str, int, bytes, dict, list})
"""What most values are, and no expression is: to ask this is quicker."""

_NO_VALUES = (SealedValue, BaseExpression, Combinable)


class SealingMixin(GenericField[Set_contra, Get_co]):
    """The part of an encrypted field that turns values into records and records into values."""

    partition: str | None
    allow_plaintext: bool
    format: RecordFormat

    _plain_pre_save: ClassVar[Callable[[Any, models.Model, bool], Any]]
    """The plain field's ``pre_save``, found once per class: to look for it costs more than to call it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._plain_pre_save = super().pre_save
        # decode_text raises nothing but errors of ours, so there is nothing to translate.
        plain: Any = cls.load
        cls._load_safely = staticmethod(decode_text) if plain is decode_text else SealingMixin._load_safely  # type: ignore[method-assign]

    def dump(self, value: Any) -> bytes:
        """Return a value that isn't None as the bytes to encrypt.

        Raises:
            Exception: the field can't hold such a value. Any but an ``AsherahError`` becomes an ``EncryptionError``.
        """
        return encode_text(str(self.get_prep_value(value)))

    def load(self, payload: bytes) -> Any:
        """Return the value that :meth:`dump` made ``payload`` from.

        Raises:
            Exception: this field did not make it. Any but an ``AsherahError`` becomes a ``DecryptionError``.
        """
        return self.to_python(decode_text(payload))

    def seal(self, payload: bytes) -> str | bytes:
        """Return ``payload`` as a new record of the field's format, under the newest key.

        Raises:
            EncryptionError: the payload is too long.
            KMSError, MetastoreError: there is no key, and none can be loaded or made.
        """
        return self.format.seal(engine.get_session(self.partition), payload)

    def open(self, record: str | bytes) -> bytes:
        """Return the payload of a record of whatever format.

        Raises:
            AsherahError: it can't be opened.
        """
        return engine.get_session(self.partition).decrypt(record)

    def key_of(self, record: str | bytes) -> KeyMeta:
        """Return the intermediate key that a record names.

        Raises:
            InvalidRecordError: it is not a record.
            PartitionMismatchError: it is a compact record of another partition.
        """
        return engine.get_session(self.partition).read(record).key.parent_key_meta

    def newest_key(self) -> KeyMeta:
        """Return the intermediate key that :meth:`seal` uses now.

        Raises:
            KMSError, MetastoreError: there is no key, and none can be loaded or made.
        """
        key_id = engine.get_session(self.partition).partition.intermediate_key_id
        return engine.get_factory().intermediate_keys.current(key_id).meta

    def value_of(self, raw: Any) -> Any:
        """Return the value of what the column holds, which isn't NULL.

        Raises:
            AsherahError: it can't be opened, or seals no value of this field.
        """
        return self._load_safely(self.open(raw))

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """Return the instance's value as a record."""
        try:
            return self._sealed(self._plain_pre_save(model_instance, add), is_new=add)
        except AsherahError as exc:
            # The frames below hold the value, and a debug page shows what frames hold.
            raise exc.at(self.full_name).with_traceback(None)  # noqa: B904 - it is the same error

    def get_db_prep_save(self, value: Any, connection: BaseDatabaseWrapper) -> Any:
        """Return the record to store, or an expression that certainly yields one.

        Raises:
            FieldError: the database would store something else than a record of this field.
        """
        try:
            sealed = value if value.__class__ is SealedValue else self._sealed(value)
            if sealed.__class__ is SealedValue:
                if connection.alias != engine.keys_alias:  # Most often it is, and a call costs more than this.
                    engine.require_committed_key(self.partition, connection.alias)
                return sealed.record
        except AsherahError as exc:
            raise exc.at(self.full_name).with_traceback(None)  # noqa: B904 - it is the same error
        if sealed is not None:
            require_records(self, sealed)
        return sealed

    def from_db_value(self, value: Any, expression: Any, connection: BaseDatabaseWrapper) -> Any:
        """Return the value that a record seals.

        Raises:
            AsherahError: it can't be opened; the message names the model and the field.
        """
        if value.__class__ is not str:
            if value is None:
                return None
            if isinstance(value, memoryview) and self.format.is_binary:
                value = bytes(value)
        try:
            if self.allow_plaintext:
                return self.value_of(value)
            # value_of() without its two calls. The payload gets no name: this is the one frame that an error keeps.
            return self._load_safely(engine.get_session(self.partition).decrypt(value))
        except AsherahError as exc:
            if is_tolerated() and isinstance(exc, DecryptionError | KeyNotFoundError):
                return Unreadable(self, value)
            raise exc.at(self.full_name).with_traceback(None)  # noqa: B904 - it is the same error

    @property
    def full_name(self) -> str:
        """The field's full name for messages, for example ``clinic.Patient.ssn``."""
        model = getattr(self, "model", None)
        return f"{model._meta.label}.{self.name}" if model else type(self).__name__

    @property
    def record_kind(self) -> tuple[str | None, type, str]:
        """What two fields must share for the record of one to be a value of the other: partition, type and format."""
        return self.partition, type(self), self.format.name

    def _sealed(self, value: Any, is_new: bool = True) -> Any:
        """Return ``value`` as a :class:`SealedValue`; None, sealed values and expressions as they are.

        What could not be opened stays the record that it was found as, in its own row.
        """
        if value.__class__ not in _VALUES:  # Most are, and need no further look.
            if value is None:
                return None
            if isinstance(value, _NO_VALUES):
                return self._expression(value)
            if value.__class__ is Unreadable:
                return self._kept(value, is_new)
        try:
            payload = self.dump(value)
        except AsherahError:
            raise
        except Exception as exc:
            reason = type(exc).__name__
        else:
            # seal() without its call.
            return SealedValue(self.format.seal(engine.get_session(self.partition), payload))
        # Raised here, because the cause's message, arguments and frames may hold the value.
        raise EncryptionError(f"it can't hold the {type(value).__name__} that was given ({reason})")

    def _kept(self, value: Unreadable, is_new: bool) -> SealedValue:
        if value.field != self or is_new:
            raise EncryptionError("the value could not be opened, so it is not written anywhere else")
        return SealedValue(value.raw)

    def _expression(self, value: Any) -> Any:
        """Return what stands for an expression that was assigned."""
        return value

    def _load_safely(self, payload: bytes) -> Any:
        """Load a payload. An error from elsewhere may hold the value, and is replaced by one of ours."""
        try:
            return self.load(payload)
        except AsherahError:
            raise
        except Exception as exc:
            reason = type(exc).__name__
        raise DecryptionError(f"the record opens, but holds no value of this field ({reason}): another kind wrote it")


def load_keys(metas: Iterable[KeyMeta | None]) -> None:
    """Load those of these keys that are not cached yet, together; None stands for none.

    Raises:
        MetastoreError: the key table can't be read.
    """
    engine.get_factory().load_keys(meta for meta in metas if meta is not None)
