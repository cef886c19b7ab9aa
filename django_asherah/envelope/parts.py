"""Many things, some at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def parts_of(things: Iterable[T], length: int) -> Iterator[list[T]]:
    """Yield ``things`` in lists of at most ``length``."""
    left = iter(things)
    while part := list(islice(left, length)):
        yield part
