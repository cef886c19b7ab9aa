"""Many things, some at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def parts_of(things: Iterable[T], length: int) -> Iterator[list[T]]:
    """Yield ``things`` in lists of at most ``length``."""
    left = iter(things)
    while part := list(islice(left, length)):
        yield part


def parts_by_length(things: Iterable[T], most: int, length_of: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield ``things`` in lists whose lengths add up to at most ``most``; a longer one is alone."""
    part: list[T] = []
    total = 0
    for thing in things:
        length = length_of(thing)
        if part and total + length > most:
            yield part
            part, total = [], 0
        part.append(thing)
        total += length
    if part:
        yield part
