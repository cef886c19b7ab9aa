"""Whether what a library's field gives can be a value, or must be what a wrong key makes of one."""

from __future__ import annotations

import datetime
import json
import unicodedata
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db import models

from django_asherah.copying.shapes import shape_of

_TYPES: dict[type[models.Field[Any, Any]], tuple[type, ...]] = {
    models.BooleanField: (bool,),
    models.IntegerField: (int,),
    models.FloatField: (float,),
    models.DecimalField: (Decimal,),
    models.DateTimeField: (datetime.datetime,),
    models.DateField: (datetime.date,),
    models.TimeField: (datetime.time,),
    models.DurationField: (datetime.timedelta,),
    models.UUIDField: (uuid.UUID,),
    models.BinaryField: (bytes, bytearray, memoryview),
    models.JSONField: (dict, list, str, int, float, bool),
}
"""The types that a field holds, by what it is first. All others hold text. A type's subclasses are none of these."""

_NO_TEXT = {
    "Cc": "a control character",
    "Cn": "an unassigned code point",
    "Co": "a private-use character",
    "Cs": "a surrogate",
}
_LEAST_PIECE = 16
"""How many characters must be found in the other for a value and a stored text to be the same thing."""


@dataclass(frozen=True, slots=True)
class Plausibility:
    """What values of a field can be.

    Attributes:
        new: the field of ours that is to hold them.
        own: what the application knows of them; it replaces the question of shape. None if it knows nothing.
    """

    new: models.Field[Any, Any]
    own: Callable[[Any], object] | None = None

    def type_fault(self, value: Any) -> str:
        """Return why ``value`` is not of the field's kind; an empty string if it is."""
        types = next((types for kind, types in _TYPES.items() if isinstance(self.new, kind)), (str,))
        if type(value) in types:
            return ""
        held = " or ".join(kind.__name__ for kind in types)
        return f"it is {type(value).__name__}, and {type(self.new).__name__} holds {held}"

    def fault(self, value: Any, raw: Any) -> str:
        """Return why ``value`` can't be one, in words without it; an empty string if it can.

        Args:
            value: what the old field gives.
            raw: what its column holds.
        """
        if fault := self.type_fault(value):
            return fault
        if is_empty(value):
            return ""
        if is_given_back(value, raw):
            return "it is what the column holds: not decrypted, or never encrypted"
        for text in _texts(value):
            if fault := _text_fault(text):
                return fault
        if self.own is not None:
            return "" if self.own(value) else "plausible() says no"
        shape = shape_of(value) if isinstance(value, str) else ""
        return f"it looks like ciphertext or a token: {shape}" if shape else ""


def is_empty(value: Any) -> bool:
    """Tell whether a value is text or bytes of no length: nothing can be seen in it, and nothing is hidden by it."""
    return isinstance(value, str | bytes | bytearray | memoryview) and len(value) == 0


def length_of(raw: Any) -> int:
    """Return how much a column holds."""
    return len(_as_text(raw))


def is_given_back(value: Any, raw: Any) -> bool:
    """Tell whether a library gave back what the column holds, or a piece of it, instead of what that encrypts."""
    if isinstance(value, dict | list):
        with suppress(ValueError):
            return bool(json.loads(_as_text(raw)) == value)
        return False
    given, stored = _as_text(value), _as_text(raw)
    if given == stored:
        return True
    return (len(given) >= _LEAST_PIECE and given in stored) or (len(stored) >= _LEAST_PIECE and stored in given)


def _as_text(value: Any) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "surrogateescape")
    return str(value)


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a value, those in a document and its keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for pair in value.items():
            yield from _texts(list(pair))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _text_fault(text: str) -> str:
    if text.isascii() and text.isprintable():  # Most are, and need no further look.
        return ""
    if "\ufffd" in text:
        return "it holds a replacement character"
    kinds = {unicodedata.category(char) for char in text if char not in "\t\n\r"}
    return next((f"it holds {name}" for kind, name in _NO_TEXT.items() if kind in kinds), "")
