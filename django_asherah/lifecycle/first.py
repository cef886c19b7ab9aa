"""The first of many things one by one, and all of them as a number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

MOST_LISTED = 1000
"""Things that a report lists one by one: a million of them need not fit into memory."""

T = TypeVar("T")


class FirstOf(list[T]):
    """The first thousand of what was met.

    Attributes:
        total: how many there are, with those that are not listed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    @property
    def unlisted(self) -> int:
        """How many are not listed."""
        return self.total - len(self)

    def add(self, thing: T) -> None:
        """Count a thing, and list it if there is room."""
        self.total += 1
        if len(self) < MOST_LISTED:
            self.append(thing)

    def add_all(self, things: Iterable[T]) -> None:
        """Add each of these."""
        for thing in things:
            self.add(thing)

    def merge(self, others: FirstOf[T]) -> None:
        """Add what another report counted."""
        self.total += others.total
        self.extend(others[: MOST_LISTED - len(self)])
