"""What stands for a value that can't be opened, so that the rest of its row can still be shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Self

from django.db.models import BooleanField
from django.db.models.query import ModelIterable

_tolerated: ContextVar[bool] = ContextVar("django_asherah_tolerated", default=False)


class Unreadable(str):
    """A value that could not be opened. As text it is a mark, which a model's ``__str__()`` may return.

    Saving its instance writes the record back as it was found; it can't be written anywhere else.
    """

    __slots__ = ("field", "raw")

    field: Any
    raw: Any

    def __new__(cls, field: Any, raw: Any) -> Self:
        """Take the field and what its column holds."""
        unreadable = super().__new__(cls, "⚠ could not be decrypted")
        unreadable.field, unreadable.raw = field, raw
        return unreadable

    # Django's admin looks a truth value's icon up among True, False and None, and this is none it knows: so, the last.
    def __eq__(self, other: object) -> bool:
        return other is None if self._is_truth else super().__eq__(other)

    def __hash__(self) -> int:
        return hash(None) if self._is_truth else super().__hash__()

    @property
    def _is_truth(self) -> bool:
        return isinstance(self.field, BooleanField)

    def __getnewargs__(self) -> tuple[Any, Any]:  # type: ignore[override]
        return self.field, self.raw

    __repr__ = str.__str__


def is_tolerated() -> bool:
    """Tell whether a value that can't be opened becomes an :class:`Unreadable` rather than an error."""
    return _tolerated.get()


class TolerantIterable(ModelIterable):
    """Makes instances of rows, with an :class:`Unreadable` for each value that can't be opened."""

    def __iter__(self) -> Iterator[Any]:
        rows = super().__iter__()
        while True:
            with _tolerating():  # Only here: what the rows are used for is none of this.
                row = next(rows, None)
            if row is None:
                return
            yield row


@contextmanager
def _tolerating() -> Iterator[None]:
    token = _tolerated.set(True)
    try:
        yield
    finally:
        _tolerated.reset(token)
