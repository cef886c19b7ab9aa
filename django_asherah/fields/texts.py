"""Values as text, by the type that a column would store: a member of an enumeration, or a subclass, says another."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

_TEXTS: dict[type, Callable[[Any], str]] = {
    str: str.__str__,
    bool: bool.__repr__,
    int: int.__repr__,
    float: float.__repr__,
    Decimal: Decimal.__str__,
    UUID: UUID.__str__,
    datetime: lambda value: datetime.isoformat(value, " "),
    date: date.isoformat,
    time: time.isoformat,
    timedelta: timedelta.__str__,
}
"""The text of a type's values. A type is before those that it is a subclass of. What is sealed is stored for good."""


def text_of(value: Any) -> str:
    """Return a value's text: that of the first of these types that it is of, or else its own."""
    write = _TEXTS.get(value.__class__)
    if write is None:
        write = next((write for type_, write in _TEXTS.items() if isinstance(value, type_)), str)
    return write(value)
