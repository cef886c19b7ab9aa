"""How functions that take long tell how far they are."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int], object]
"""Is told how many more keys or values were dealt with."""


def tell_nobody(count: int) -> None:
    """Tell nobody how far it is."""
