"""Replacing values in transactions: again if others hold a row, and in halves if the database refuses a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import DatabaseError, OperationalError, connections, transaction
from msgspec import Struct, field

from django_asherah.envelope.parts import parts_by_length
from django_asherah.lifecycle.columns import Column
from django_asherah.lifecycle.database_errors import lock_of, reason_of, refusal_of
from django_asherah.lifecycle.giving_way import HeldError, insist
from django_asherah.lifecycle.swap import Swap, swap_values

_MOST_NAMED = 20
_MOST_CHARACTERS = 32_000_000
"""Of old and new values that are sent together. PostgreSQL takes no more than 1 GB, and each may need six bytes."""


class Outcome(Struct):
    """What became of some swaps.

    Attributes:
        written: how many were written.
        lost: the primary keys of those whose row was not as it had been read.
        refused: why the others could not be written, by primary key.
    """

    written: int = 0
    lost: list[Any] = field(default_factory=list)
    refused: dict[Any, str] = field(default_factory=dict)


def replace_values(column: Column, swaps: list[Swap], note: Callable[[list[Swap]], object] | None = None) -> Outcome:
    """Replace values as ``swap_values`` does, in transactions of their own.

    Args:
        column: whose.
        swaps: what is replaced.
        note: is told what has been written, inside the transaction that has.

    Raises:
        HeldError: others hold the whole table, or database.
        OperationalError: the database failed. Neither error shows a value, nor hangs on one that does.
    """
    outcome = Outcome()
    waiting = [*parts_by_length(swaps, _MOST_CHARACTERS, _length)][::-1]
    while waiting:
        waiting += _replace(column, waiting.pop(), note, outcome)
    return outcome


def _length(swap: Swap) -> int:
    return len(swap.before) + len(swap.after)


def _replace(
    column: Column, swaps: list[Swap], note: Callable[[list[Swap]], object] | None, outcome: Outcome
) -> list[list[Swap]]:
    """Replace values in one transaction; return smaller parts of them to be tried, if it had to be rolled back."""
    try:
        lost = insist(column.alias, lambda: _in_one_transaction(column, swaps, note), _named(column, swaps))
    except HeldError as exc:
        held = _held(column, swaps)
        if not held:
            raise
        outcome.refused |= dict.fromkeys(held, exc.reason)
        rest = [swap for swap in swaps if swap.pk not in held]
        return [rest] if rest else []
    except DatabaseError as exc:
        lock, refusal, failure = lock_of(exc), refusal_of(exc), reason_of(exc)
    else:
        outcome.lost += lost
        outcome.written += len(swaps) - len(lost)
        return []
    # Not from within the handler: what the database said would hang on it.
    if lock:  # It is the caller's own transaction that was broken off.
        raise HeldError(_named(column, swaps), lock, 1)
    if not refusal:
        raise OperationalError(f"{_named(column, swaps)}: {failure}. Nothing of this was changed")
    if len(swaps) == 1:
        outcome.refused[swaps[0].pk] = refusal
        return []
    half = len(swaps) // 2
    return [swaps[half:], swaps[:half]]


def _in_one_transaction(column: Column, swaps: list[Swap], note: Callable[[list[Swap]], object] | None) -> list[Any]:
    with transaction.atomic(using=column.alias):
        lost = swap_values(connections[column.alias], column, swaps)
        gone = set(lost)
        written = [swap for swap in swaps if swap.pk not in gone]
        if note and written:
            note(written)
    return lost


def _held(column: Column, swaps: list[Swap]) -> set[Any]:
    """Return the primary keys of the rows that others hold; none if that can't be found out."""
    try:
        return column.held([swap.pk for swap in swaps])
    except DatabaseError:
        return set()


def _named(column: Column, swaps: list[Swap]) -> str:
    named = ", ".join(f"pk={swap.pk}" for swap in swaps[:_MOST_NAMED])
    more = f" and {len(swaps) - _MOST_NAMED} more" if len(swaps) > _MOST_NAMED else ""
    return f"{column.label} {named}{more}"
