"""A model's attribute: what was loaded is opened when it is read for the first time, and not before."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import CodeType
from typing import Any, cast
from uuid import UUID

from django.core.exceptions import SynchronousOnlyOperation
from django.db import models
from django.db.models.fields.related_descriptors import ForwardOneToOneDescriptor
from django.db.models.query_utils import DeferredAttribute
from django.db.models.sql.compiler import SQLInsertCompiler

from django_asherah.envelope.forksafe import PerProcess
from django_asherah.exceptions import AsherahError, DecryptionError, KeyNotFoundError
from django_asherah.fields.rows import current_partition, forget, knows_row, loaded_partition
from django_asherah.fields.sealed import SealedValue
from django_asherah.fields.unreadable import Unreadable, is_tolerated
from django_asherah.guard import allowed_partitions

_keeping = PerProcess(threading.Lock)

_getframe, _get_allowed = sys._getframe, allowed_partitions.get
"""Found once: they are asked for each value that is read."""

_UNCHANGEABLE = frozenset({str, int, float, bytes, bool, Decimal, date, datetime, time, timedelta, UUID})
"""Of such values it does not matter that two threads that read one instance have each its own."""


def _codes(*functions: Any) -> Iterator[CodeType]:
    """Yield the code of functions, and of the comprehensions in them, which have their own up to Python 3.11."""
    codes: list[CodeType] = [function.__code__ for function in functions]
    while codes:
        code = codes.pop()
        yield code
        codes += [each for each in code.co_consts if isinstance(each, CodeType)]


_COPIERS = frozenset(_codes(models.Model.refresh_from_db, ForwardOneToOneDescriptor.get_object))
"""Where Django copies attributes from one instance to another and reads none: there the value stays sealed."""

_RAW_WRITERS = frozenset(_codes(cast(Any, models.Model)._save_table, SQLInsertCompiler.pre_save_val))
"""Where Django writes an attribute and asks no field's ``pre_save``, as ``loaddata`` has it: the row must be known."""


class EncryptedAttribute(DeferredAttribute):
    """The attribute of an encrypted field.

    Under the field's ``attname``, an instance's ``__dict__`` holds the :class:`SealedValue` that was loaded, or the
    value once it was read or assigned. Django's deferred loading, pickling and copying look there, and work so.
    """

    field: Any

    def __init__(self, field: Any) -> None:
        super().__init__(field)
        self._name = field.attname
        self._load = field.load_safely

    def __get__(self, instance: models.Model | None, cls: type[models.Model] | None = None) -> Any:
        """Return the value.

        Raises:
            AsherahError: it can't be opened; the message names model, field and primary key.
            SynchronousOnlyOperation: its key is not loaded, and this is an event loop.
        """
        if instance is None:
            return self
        # No name for the instance's dict, which holds values: a debug page shows what this frame's names stand for.
        name = self._name
        try:
            value = instance.__dict__[name]
        except KeyError:
            value = super().__get__(instance, cls)
        if value.__class__ is not SealedValue or _getframe(1).f_code in _COPIERS:
            return value
        loaded = value.loaded
        try:
            # The payload gets no name: this is the one frame that an error keeps.
            if loaded.session is not None and _get_allowed() is None:
                opened = self._load(loaded.session.decrypt(value.record, loaded.keys))
            else:
                opened = self._opened(instance, value)
        except AsherahError as exc:
            if is_tolerated(instance) and isinstance(exc, DecryptionError | KeyNotFoundError):
                return Unreadable(self.field, value.record, instance.pk)
            place = f"{self.field.full_name} pk={instance.pk}"
            raise exc.at(place).with_traceback(None)  # noqa: B904 - it is the same error
        except SynchronousOnlyOperation:
            raise SynchronousOnlyOperation(
                f"{self.field.full_name} pk={instance.pk}: to read it takes the database, as its key was not loaded "
                "with its row, or could not be: read it in sync_to_async(), which also says why"
            ) from None
        if opened.__class__ in _UNCHANGEABLE:
            if instance.__dict__.get(name) is value:  # Another thread may have assigned something since.
                instance.__dict__[name] = opened
            return opened
        # If another thread was quicker, its document is the one: of two, one would be changed in vain.
        with _keeping.get():
            if instance.__dict__[name] is value:
                instance.__dict__[name] = opened
            return instance.__dict__[name]

    def __set__(self, instance: models.Model, value: Any) -> None:
        """Let the instance hold ``value``."""
        instance.__dict__[self._name] = value

    def __delete__(self, instance: models.Model) -> None:
        """Forget what the instance holds: the next read asks the database.

        Raises:
            AttributeError: it holds nothing.
        """
        try:
            del instance.__dict__[self._name]
        except KeyError:
            raise AttributeError(self._name) from None

    def fetch_many(self, instances: Iterable[models.Model]) -> None:
        """Load the column for instances whose query has left it out, and open none of it."""
        missing = [each for each in instances if self._name not in each.__dict__ and each.pk is not None]
        if not missing:
            return
        rows = self.field.model._base_manager.using(missing[0]._state.db).only(self._name)
        found = rows.in_bulk([each.pk for each in missing])
        for instance in missing:
            if instance.pk in found:
                instance.__dict__[self._name] = found[instance.pk].__dict__[self._name]

    def _opened(self, instance: models.Model, sealed: SealedValue) -> Any:
        """Return the value of what no loaded session may open: the row says whose it is, or a guard is asked."""
        field, partition = self.field, None
        if field.template is not None:
            partition = loaded_partition(field, sealed, instance) or current_partition(field, instance)
        return field.value_of(sealed.record, partition, sealed.loaded.keys)


class RowAttribute(EncryptedAttribute):
    """The attribute of a field whose partition the row says.

    Attributes:
        knows_writers: it tells who writes it as it is from who reads it.
    """

    knows_writers = True

    def __get__(self, instance: models.Model | None, cls: type[models.Model] | None = None) -> Any:
        """Return the value; what is to be written, to who writes it as it is.

        Raises:
            AsherahError, SynchronousOnlyOperation: as for every encrypted field.
        """
        if instance is not None and self._name in instance.__dict__:
            caller = _getframe(1).f_code
            if caller in _COPIERS:
                return instance.__dict__[self._name]
            if caller in _RAW_WRITERS:
                return self._prepared(instance)
        return super().__get__(instance, cls)

    def __set__(self, instance: models.Model, value: Any) -> None:
        """Let the instance hold ``value``."""
        if value.__class__ is SealedValue and knows_row(instance):
            forget(instance)
        instance.__dict__[self._name] = value

    def _prepared(self, instance: models.Model) -> Any:
        try:
            return self.field.prepare(instance.__dict__[self._name], instance)
        except AsherahError as exc:
            raise exc.at(self.field.full_name).with_traceback(None)  # noqa: B904 - it is the same error
