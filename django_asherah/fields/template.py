"""A partition that the row says: a text such as ``clinic-{clinic_id}``, with columns of the row in it.

Two rows that differ in a column never get the same partition from it: what a key id may not hold as it is, is escaped,
and a check wants something between two columns that no value can hold. The text stands in migrations and the partitions
in key ids, so neither the escape nor the way a value becomes text may ever change.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime
from functools import lru_cache
from string import Formatter
from typing import Any, Self
from uuid import UUID

from django_asherah.exceptions import EncryptionError
from django_asherah.fields.texts import text_of

_ESCAPED = re.compile(r"[^A-Za-z0-9.-]")
_BRACES = frozenset("{}")


class PartitionTemplate:
    """What makes a row's partition of the row's own columns.

    Attributes:
        text: the template as it was given.
        names: the columns that it names, each by its field's name or ``attname``.

    Raises:
        ValueError: the text can't be read: a brace alone, a format, or a column without a name.
    """

    __slots__ = ("_literals", "names", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        names, literals = [], [""]
        for literal, name, form, conversion in _parse(text):
            literals[-1] += literal
            if name is None:  # A brace that is written twice ends a literal, too.
                continue
            if not name or form or conversion:
                raise ValueError(f"partition {text!r}: between braces stands the name of a column, and nothing else")
            names.append(name)
            literals.append("")
        self.names = tuple(names)
        self._literals = tuple(literals)

    @classmethod
    def find(cls, partition: str | None) -> Self | None:
        """Return the template that a field's ``partition`` is; None if it is the same for every row."""
        is_one = isinstance(partition, str) and not _BRACES.isdisjoint(partition)
        return cls(partition) if is_one and partition is not None else None

    def render(self, values: Sequence[Any]) -> str:
        """Return the partition of a row.

        Args:
            values: those of the columns in ``names``, in that order, as their fields' ``to_python`` returns them.

        Raises:
            EncryptionError: one is None or empty, or has no one text.
        """
        parts = [self._literals[0]]
        for name, value, literal in zip(self.names, values, self._literals[1:], strict=True):
            try:
                parts += _escape(_text_of(value)), literal
            except ValueError as exc:
                raise EncryptionError(f"its partition {self.text!r} needs {name!r}, {exc}") from None
        return "".join(parts)

    @property
    def is_ambiguous(self) -> bool:
        """Whether two columns stand so that other values of both could make the same partition."""
        return not all(_separates(literal) for literal in self._literals[1:-1])

    def __repr__(self) -> str:
        return f"<PartitionTemplate {self.text}>"


def _parse(text: str) -> list[tuple[str, str | None, str | None, str | None]]:
    try:
        return list(Formatter().parse(text))
    except ValueError as exc:
        raise ValueError(f"partition {text!r}: {exc}; a brace that is meant as such is written twice") from None


def _separates(literal: str) -> bool:
    return any(char != "%" and _ESCAPED.match(char) for char in literal)


def _text_of(value: Any) -> str:
    """Return a column's value as text.

    Raises:
        ValueError: there is none, or it could be written in more than one way.
    """
    if isinstance(value, str):
        text = str.__str__(value)
        if not text:
            raise ValueError("which is empty")
        return text
    if value is None:
        raise ValueError("which is None: set it before the row is saved")
    if isinstance(value, int | UUID | date) and not isinstance(value, datetime):
        return text_of(value)
    raise ValueError(f"and a {type(value).__name__} has no one text: use an integer, a string, a UUID or a date")


@lru_cache(maxsize=4096)
def _escape(text: str) -> str:
    """Return a text with everything but ASCII letters, digits, dots and hyphens as percent signs and hex digits.

    Raises:
        ValueError: it holds lone surrogates.
    """
    try:
        return _ESCAPED.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), text)
    except UnicodeEncodeError:
        pass
    raise ValueError("which holds lone surrogates, and these are not Unicode text")
