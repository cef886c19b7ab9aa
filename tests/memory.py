"""How much memory a piece of work takes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def peak_of(work: Callable[[], T]) -> tuple[T, int]:
    """Return what ``work`` returns, and the most memory (bytes) that it held at a time."""
    tracemalloc.start()
    try:
        return work(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
