"""What stands for a value that can't be opened, so that the rest of its row can still be shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

from django.db import models
from django.db.models import BooleanField
from django.db.models.query import ModelIterable

_MARK = "shows_unreadable"


class Unreadable(str):
    """A value that could not be opened. As text it is a mark, which a model's ``__str__()`` may return.

    Saving its instance writes the record back as it was found; it can't be written anywhere else.
    """

    __slots__ = ("_key", "field", "raw")

    field: Any
    raw: Any
    _key: Any

    def __new__(cls, field: Any, raw: Any, key: Any = None) -> Self:
        """Take the field, what its column holds, and its row's primary key."""
        unreadable = super().__new__(cls, "⚠ could not be decrypted")
        unreadable.field, unreadable.raw, unreadable._key = field, raw, key
        return unreadable

    def is_of(self, field: Any, instance: models.Model) -> bool:
        """Tell whether this was found in ``field`` of the very row."""
        return bool(self.field == field and self._key == instance.pk)

    # Django's admin looks a truth value's icon up among True, False and None, and this is none it knows: so, the last.
    def __eq__(self, other: object) -> bool:
        return other is None if self._is_truth else super().__eq__(other)

    def __hash__(self) -> int:
        return hash(None) if self._is_truth else super().__hash__()

    @property
    def _is_truth(self) -> bool:
        return isinstance(self.field, BooleanField)

    def __getnewargs__(self) -> tuple[Any, Any, Any]:  # type: ignore[override]
        return self.field, self.raw, self._key

    __repr__ = str.__str__


def is_tolerated(instance: models.Model) -> bool:
    """Tell whether an instance shows what can't be opened as :class:`Unreadable`, and raises no error."""
    return _MARK in instance._state.__dict__


class TolerantIterable(ModelIterable):
    """Makes instances that show what can't be opened as :class:`Unreadable`."""

    def __iter__(self) -> Iterator[Any]:
        for row in super().__iter__():
            for instance in _related(row):
                instance._state.__dict__[_MARK] = True
            yield row


def _related(instance: models.Model) -> Iterator[models.Model]:
    """Yield an instance and those that were selected with it."""
    yield instance
    for related in instance._state.fields_cache.values():
        if isinstance(related, models.Model) and not is_tolerated(related):
            yield from _related(related)
