"""Values that do not open."""

from __future__ import annotations

from dataclasses import dataclass

from django_asherah.lifecycle.first import FirstOf


@dataclass(frozen=True, slots=True)
class BadValue:
    """A value that does not open."""

    column: str
    pk: str
    reason: str
    key: str


class BadValues(FirstOf[BadValue]):
    """The first bad values, and how many there are."""
