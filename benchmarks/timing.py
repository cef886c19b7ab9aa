"""How long work takes. The worker imports this in every peer's environment, so it needs nothing but Python."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable
from typing import Any


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds that ``work`` takes, with no garbage collection between."""
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    finally:
        gc.enable()


def lowest(runs: Iterable[dict[str, float]]) -> dict[str, float]:
    """Return the lowest of each figure over several runs, which all have the same ones."""
    first, *others = runs
    return {name: min(run[name] for run in (first, *others)) for name in first}
