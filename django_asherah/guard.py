"""A guard over partitions: while it is active, a session of any other one is refused, whatever a row says.

It finds the query that lacks its tenant filter. It is never the source of a partition: a field's own option, or its
row, says whose key to use, and outside a guard nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar, Token
from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any, TypeVar, cast

from django_asherah.exceptions import PartitionMismatchError

F = TypeVar("F", bound=Callable[..., Any])

allowed_partitions: ContextVar[frozenset[str] | None] = ContextVar("allowed_partitions", default=None)
"""What the guard that is active here allows; None if there is no guard."""


class partition_guard:  # noqa: N801 - it reads as part of a `with` statement
    """Allow these partitions alone: a ``with`` block, or a decorator of functions and ``async`` functions.

    It holds for the code of this thread or task, for what that awaits, and for what ``sync_to_async`` and
    ``async_to_sync`` call; a thread started by hand has no guard. A generator must not ``yield`` inside of one, which
    would hold for whoever iterates.

    Args:
        partitions: what may be used, that of fields with a constant partition included; none at all if there are none.

    Raises:
        TypeError: one is not a str, or what is decorated is a generator.
        PartitionMismatchError: raised on entering. It allows more than the guard around it, and may only narrow it.
        RuntimeError: raised on entering. It is active already: each ``with`` takes a guard of its own.
    """

    def __init__(self, *partitions: str) -> None:
        for partition in partitions:
            if not isinstance(partition, str):
                raise TypeError(f"a guard's partition must be a str, not {type(partition).__name__}")
        self.partitions = frozenset(partitions)
        self._token: Token[frozenset[str] | None] | None = None

    def __enter__(self) -> None:
        if self._token is not None:
            raise RuntimeError("this partition guard is active already: make one for each with statement")
        outer = allowed_partitions.get()
        if outer is not None and not self.partitions <= outer:
            raise PartitionMismatchError(
                f"a partition guard of {_names(self.partitions)} would widen the one around it, of {_names(outer)}: "
                "an inner guard may only narrow"
            )
        self._token = allowed_partitions.set(self.partitions)

    def __exit__(self, *exc_info: object) -> None:
        token, self._token = self._token, None
        allowed_partitions.reset(cast("Token[frozenset[str] | None]", token))

    def __call__(self, function: F) -> F:
        """Return the function with a guard around each call."""
        if isgeneratorfunction(function) or isasyncgenfunction(function):
            raise TypeError(
                f"{function.__qualname__} is a generator, which runs while others iterate: "
                "put `with partition_guard(…)` inside, around what does not yield"
            )

        @wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            with partition_guard(*self.partitions):
                return function(*args, **kwargs)

        @wraps(function)
        async def guarded_async(*args: Any, **kwargs: Any) -> Any:
            with partition_guard(*self.partitions):
                return await function(*args, **kwargs)

        return cast("F", guarded_async if iscoroutinefunction(function) else guarded)


def outside_guard(partition: str, allowed: frozenset[str]) -> PartitionMismatchError:
    """Return the error that says that the active guard does not allow ``partition``."""
    return PartitionMismatchError(
        f"partition {partition!r} is outside the active partition guard, which allows {_names(allowed)}: "
        "the query lacks its tenant filter, or the guard is the wrong one"
    )


def _names(partitions: Iterable[str]) -> str:
    names = [repr(partition) for partition in sorted(partitions)]
    shown = ", ".join(names[:5]) or "none"
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
