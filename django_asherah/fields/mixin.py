"""What every encrypted field has in common: value ⇄ record, and nothing else in the database."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from django.core import checks
from django.core.exceptions import FieldError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import connection as default_connection
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.expressions import BaseExpression, Col, Combinable
from django.utils.functional import cached_property
from msgspec import Struct

from django_asherah import engine
from django_asherah.exceptions import (
    AsherahError,
    DecryptionError,
    EncryptionError,
    KeyNotFoundError,
)
from django_asherah.fields.column import ColumnMixin
from django_asherah.fields.formats import FORMATS, get_placeholder, get_placeholder_sql
from django_asherah.fields.generic import GenericField, Get_co, Set_contra
from django_asherah.fields.guards import EncryptedCol, EncryptedExact, refuse_lookup, require_records
from django_asherah.fields.options import check_options
from django_asherah.fields.text import decode_text, encode_text
from django_asherah.fields.unreadable import Unreadable, is_tolerated

if TYPE_CHECKING:
    from django.db.models.lookups import Lookup, Transform


class SealedValue(Struct, gc=False):
    """A record on its way from ``pre_save`` to the database: never to be encrypted again."""

    record: str | bytes

    def __repr__(self) -> str:
        return "<SealedValue>"


_VALUES = frozenset({str, int, bytes, dict, list})
"""What most values are, and no expression is: to ask this is quicker."""

_NO_VALUES = (SealedValue, BaseExpression, Combinable)


class EncryptedFieldMixin(ColumnMixin, GenericField[Set_contra, Get_co]):
    """Makes an encrypted field of any Django field: ``class EncryptedSlug(EncryptedFieldMixin, models.SlugField)``.

    The column is of type text and holds a data row record's JSON, or NULL for None; with ``record_format="compact"`` it
    is a binary one, and its records are half as long. A value is always encrypted, whatever it looks like. The database
    can't compare, order or compute with it: whatever would need that raises ``FieldError`` before any SQL is sent.
    Forms, validation and serialization are the plain field's.

    A field whose values are not restored by ``to_python(str(value))`` overrides :meth:`dump` and :meth:`load`. What
    these raise is never shown, as it may hold the value; ``EncryptionError`` and ``DecryptionError`` are.

    Args:
        partition: whose intermediate key seals the values; ``ASHERAH["PARTITION"]`` if None.
        allow_plaintext: read values that are not encrypted yet, while a populated column moves in. What looks like a
            record is never taken for plaintext, so that a damaged record stays an error. Writes are always encrypted.
        record_format: ``json``, in a text column, which every Asherah SDK reads; ``compact``, in a binary column, which
            only this app reads; ``json-binary``, on the way back. Whichever it is, a record of each is read.

    Raises:
        ValueError: there is no such format.
    """

    # Neither changes the column.
    non_db_attrs = (*models.Field.non_db_attrs, "partition", "allow_plaintext")

    _given: ClassVar[Callable[[Any, models.Model, bool], Any]]
    """The plain field's ``pre_save``, found once a class: to look for it costs more than to call it."""

    get_placeholder = get_placeholder
    get_placeholder_sql = get_placeholder_sql

    def __init__(
        self,
        *args: Any,
        partition: str | None = None,
        allow_plaintext: bool = False,
        record_format: str = "json",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if record_format not in FORMATS:
            raise ValueError(f"record_format {record_format!r} is none of {', '.join(FORMATS)}")
        self.partition = partition
        self.allow_plaintext = allow_plaintext
        self.record_format = record_format
        self.format = FORMATS[record_format]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._given = super().pre_save
        # decode_text raises nothing but errors of ours, so there is nothing to translate.
        plain: Any = cls.load
        cls._load = staticmethod(decode_text) if plain is decode_text else EncryptedFieldMixin._load  # type: ignore[method-assign]

    def deconstruct(self) -> Any:
        """Return what recreates the field; never a secret."""
        name, path, args, kwargs = super().deconstruct()
        if path.startswith("django_asherah.fields."):  # Migrations must outlive where in here a class stands.
            path = f"django_asherah.fields.{type(self).__name__}"
        if self.partition is not None:
            kwargs["partition"] = self.partition
        if self.allow_plaintext:
            kwargs["allow_plaintext"] = True
        if self.record_format != "json":
            kwargs["record_format"] = self.record_format
        return name, path, args, kwargs

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

    def get_internal_type(self) -> str:
        """Return what kind of values Django shall take the column's for: text, whatever the value's type."""
        return "TextField"

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        """Return the type of the column."""
        return self.format.column.db_type(connection)

    def cast_db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        """Return the column's type as ``CAST`` wants it."""
        if not self.format.is_binary:
            return super().cast_db_type(connection)
        return "binary" if connection.vendor == "mysql" else self.db_type(connection)

    def get_db_converters(self, connection: BaseDatabaseWrapper) -> Any:
        """Return how to read the column: by :meth:`from_db_value` alone, whatever a plain column would need."""
        return [self.from_db_value]

    @cached_property
    def validators(self) -> Any:
        """The plain field's validators; an integer keeps to the range of a plain column."""
        if not isinstance(self, models.IntegerField):
            return super().validators
        # Django would look up the range of this column's type, and text has none.
        least, most = default_connection.ops.integer_field_range(super().get_internal_type())
        limits = [(MinValueValidator, least), (MaxValueValidator, most)]
        own = super(models.IntegerField, self).validators
        return [*own, *(validator(limit) for validator, limit in limits if limit is not None)]

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """Return the instance's value as a record."""
        try:
            return self._sealed(self._given(model_instance, add), is_new=add)
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
                return self.open(value)
            # The payload gets no name here: this is the one frame that an error keeps.
            return self._load(engine.get_session(self.partition).decrypt(value))
        except AsherahError as exc:
            if is_tolerated() and isinstance(exc, DecryptionError | KeyNotFoundError):
                return Unreadable(self, value)
            raise exc.at(self.full_name).with_traceback(None)  # noqa: B904 - it is the same error

    def get_db_prep_value(self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False) -> Any:
        """Refuse: Django asks for this only to compare the column with a value."""
        raise FieldError(f"{self.full_name} is encrypted: the database can't compare it with a value")

    def get_lookup(self, lookup_name: str) -> type[Lookup[Any]] | None:
        """Return the lookup for ``isnull`` and ``exact`` (of None); refuse every other one."""
        if lookup_name == "isnull":
            return super().get_lookup(lookup_name)
        if lookup_name == "exact":
            return EncryptedExact
        raise refuse_lookup(self, lookup_name)

    def get_transform(self, lookup_name: str) -> type[Transform] | None:
        """Refuse every transform and key path."""
        raise refuse_lookup(self, lookup_name)

    def get_col(self, alias: str, output_field: Any = None) -> Col:
        """Return the column as an expression that watches what it is used for."""
        if alias == self.model._meta.db_table and (output_field is None or output_field is self):
            return self.cached_col
        return EncryptedCol(alias, self, output_field)

    @cached_property
    def cached_col(self) -> Col:
        """The column under its table's own name."""
        return EncryptedCol(self.model._meta.db_table, self)

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        """Report options that would need the database to understand the values: ``asherah.E101`` to ``E104``."""
        return [*super().check(**kwargs), *check_options(self)]

    @property
    def record_kind(self) -> tuple[str | None, type, str]:
        """What two fields must share for the record of one to be a value of the other: partition, type and format."""
        return self.partition, type(self), self.record_format

    @property
    def full_name(self) -> str:
        """The field's full name for messages, for example ``clinic.Patient.ssn``."""
        model = getattr(self, "model", None)
        return f"{model._meta.label}.{self.name}" if model else type(self).__name__

    def _sealed(self, value: Any, is_new: bool = True) -> Any:
        """Return ``value`` as a :class:`SealedValue`; None, sealed values and expressions as they are.

        What could not be opened stays the record that it was found as, in the row where it stands.
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

    def _load(self, payload: bytes) -> Any:
        try:
            return self.load(payload)
        except AsherahError:
            raise
        except Exception as exc:
            reason = type(exc).__name__
        raise DecryptionError(f"the record opens, but holds no value of this field ({reason}): another kind wrote it")
