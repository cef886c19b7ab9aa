"""Values that do not open: the first of them one by one, all of them as a number."""

from __future__ import annotations

from dataclasses import dataclass

MOST_LISTED = 1000
"""Bad values that a report lists one by one: a million of them need not fit into memory."""


@dataclass(frozen=True, slots=True)
class BadValue:
    """A value that does not open."""

    column: str
    pk: str
    reason: str
    key: str


class BadValues(list[BadValue]):
    """The first bad values.

    Attributes:
        total: how many there are, with those that are not listed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def add(self, value: BadValue) -> None:
        """Count a bad value, and list it if there is room."""
        self.total += 1
        if len(self) < MOST_LISTED:
            self.append(value)

    def merge(self, others: BadValues) -> None:
        """Add what another process found."""
        self.total += others.total
        self.extend(others[: MOST_LISTED - len(self)])
