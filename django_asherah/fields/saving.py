"""A value's way into its column.

:meth:`~SavingMixin.pre_save` takes what the instance holds and makes a :class:`PreparedValue` of it;
:meth:`~SavingMixin.get_db_prep_save` seals that for the database. What was loaded and never read goes back as it came.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.expressions import BaseExpression, Combinable

from django_asherah.exceptions import AsherahError, DecryptionError, EncryptionError, KeyNotFoundError
from django_asherah.fields.generic import Get_co, Set_contra
from django_asherah.fields.moves import require_same_row
from django_asherah.fields.pending import PendingRecord
from django_asherah.fields.rows import (
    current_partition,
    loaded_partition,
    may_have_moved,
    open_unread,
    settle,
)
from django_asherah.fields.sealed import PreparedValue, SealedValue
from django_asherah.fields.sealing import SealingMixin
from django_asherah.fields.storing import require_records
from django_asherah.fields.unreadable import Unreadable

_VALUES = frozenset({str, int, bytes, dict, list})
"""What most values are, and no expression is: to ask this is quicker."""

_NO_VALUES = (PreparedValue, BaseExpression, Combinable)

_OWN_PRE_SAVE = frozenset(
    {models.Field.pre_save, models.DateField.pre_save, models.TimeField.pre_save, models.DateTimeField.pre_save}
)
"""Those that change nothing, unless the field has Django set the time."""


class SavingMixin(SealingMixin[Set_contra, Get_co]):
    """The part of an encrypted field that writes."""

    _plain_pre_save: ClassVar[Callable[[Any, models.Model, bool], Any]]
    """The plain field's ``pre_save``, found once per class: to look for it costs more than to call it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._plain_pre_save = super().pre_save

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """Return what the instance holds, ready to be sealed: a :class:`PreparedValue`, None or an expression."""
        try:
            return self._pre_saved(model_instance, add)
        except AsherahError as exc:
            # The frames below hold the value, and a debug page shows what frames hold.
            raise exc.at(self.full_name).with_traceback(None)  # noqa: B904 - it is the same error

    def _pre_saved(self, instance: models.Model, add: bool) -> Any:
        if add and self.template is not None:
            settle(instance)
        value = instance.__dict__.get(self.attname)
        if value.__class__ is not SealedValue or not self._leaves_alone(add):
            value = self._plain_pre_save(instance, add)
        return self.prepare(value, instance, is_new=add)

    def prepare(self, value: Any, instance: models.Model, *, is_new: bool = False) -> Any:
        """Return a value that an instance holds as :meth:`pre_save` does.

        Raises:
            EncryptionError: the field can't hold it, or the row doesn't say whose it is.
            AsherahError: it was never read and the row has moved since it was loaded, but it can't be opened.
        """
        if value.__class__ is Unreadable and value.is_of(self, instance) and not is_new:
            value = SealedValue(value.raw)
        if value.__class__ is SealedValue:
            return self._unread(value, instance, is_new=is_new)
        if self.template is None or value is None:
            return self._prepared(value, is_new=is_new)
        prepared = self._prepared(value, current_partition(self, instance), is_new=is_new)
        if prepared.__class__ is not PreparedValue:
            require_same_row(self, instance)
        return prepared

    def get_db_prep_save(self, value: Any, connection: BaseDatabaseWrapper) -> Any:
        """Return the record to store, or an expression that certainly yields one.

        Raises:
            FieldError: the database would store something else than a record of this field, or only a row says whose
                record it has to be.
        """
        try:
            if value.__class__ is not PreparedValue:
                value = self._prepared(value)
            if value.__class__ is PreparedValue:
                if value.record is None:
                    if value.partition is None and self.template is not None:
                        raise self.needs_row()
                    if value.is_new and value.partition is not None:
                        return PendingRecord(self, value)
                    return self.seal_for(connection.alias, value.payload, value.partition, value.key)
                if value.origin != connection.alias:
                    self.require_lasting(connection.alias, value.record, value.partition)
                return value.record
        except AsherahError as exc:
            raise exc.at(self.full_name).with_traceback(None)  # noqa: B904 - it is the same error
        if value is not None:
            require_records(self, value)
        return value

    def _prepared(self, value: Any, partition: str | None = None, *, is_new: bool = True) -> Any:
        """Return ``value`` as a :class:`PreparedValue`; None, prepared values and expressions as they are."""
        if value.__class__ not in _VALUES:  # Most are, and need no further look.
            if value is None:
                return None
            if isinstance(value, _NO_VALUES):
                if value.__class__ is PreparedValue and self.template is not None and value.partition != partition:
                    raise EncryptionError("a value that was prepared for a row of another partition can't be written")
                return self._expression(value, partition)
            if value.__class__ is SealedValue:
                value = self.value_of(value.record, partition or value.loaded.partition, value.loaded.keys)
            elif value.__class__ is Unreadable:
                raise EncryptionError("the value could not be opened, so it is not written anywhere else")
        try:
            return PreparedValue(None, self.dump(value), partition, is_new)
        except AsherahError:
            raise
        except Exception as exc:
            reason = type(exc).__name__
        # Raised here, because the cause's message, arguments and frames may hold the value.
        raise EncryptionError(f"it can't hold the {type(value).__name__} that was given ({reason})")

    def _unread(self, held: SealedValue, instance: models.Model, *, is_new: bool) -> Any:
        """Return what was never read: as it was loaded, unless it has to be another record in this place."""
        loaded = held.loaded
        if loaded.kind is not None and loaded.kind != self.record_kind:  # Somebody took it out of another column.
            return self.prepare(self.value_of(held.record, loaded.partition, loaded.keys), instance, is_new=is_new)
        if self.template is None or not may_have_moved(self, held, instance):
            if not loaded.is_lasting and self.has_lost_key(held):
                with suppress(DecryptionError, KeyNotFoundError):
                    payload = self.payload_of(held.record, loaded.partition, loaded.keys)
                    return PreparedValue(None, payload, loaded.partition, is_new)
            partition = loaded.partition or (current_partition(self, instance) if self.template else None)
            if is_new and not self.is_plaintext(held.record):
                self.key_of(held.record, partition)  # What is no record may stay where it is, and goes nowhere else.
            return self._as_loaded(held.record, partition, instance._state.db)
        if loaded_partition(self, held, instance) is not None:
            payload = open_unread(self, held, instance)
            return PreparedValue(None, payload, current_partition(self, instance), is_new)
        partition = current_partition(self, instance)
        self.require_partition(held.record, partition)
        return self._as_loaded(held.record, partition, instance._state.db)

    def _as_loaded(self, record: str | bytes, partition: str | None, origin: str | None) -> PreparedValue:
        return PreparedValue(record, partition=partition, origin=origin)

    def _expression(self, value: Any, partition: str | None) -> Any:
        """Return what stands for an expression that was assigned."""
        return value

    def _leaves_alone(self, add: bool) -> bool:
        """Tell whether the plain field's ``pre_save`` would return the value as it is."""
        if getattr(self, "auto_now", False) or (add and getattr(self, "auto_now_add", False)):
            return False
        return type(self)._plain_pre_save in _OWN_PRE_SAVE
