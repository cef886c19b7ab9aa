"""The proof that a library's field has its right key: by canaries, and by a sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import models
from django.views.decorators.debug import sensitive_variables

from django_asherah.copying.old_column import NOT_EMPTY, NotAValueError, OldColumn
from django_asherah.copying.plausibility import is_empty, is_given_back
from django_asherah.exceptions import ProofError

SAMPLE = 300
"""How many values are looked at: docs/how-to/migrate-from-another-library.md has the arithmetic."""

_MOST_DRAWN = 10 * SAMPLE
"""Rows to look for them in, as empty values prove nothing."""

_MOST_NAMED = 5
_DRAWN_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is seen of a value: how much its column holds, whether it is empty, and why it is none."""

    pk: Any
    length: int
    is_empty: bool = False
    fault: str = ""


@sensitive_variables()
def require_canaries(column: OldColumn, canary: Mapping[Any, Any]) -> None:
    """Require that the old field gives what the application knows that some rows hold.

    Args:
        column: the old one.
        canary: the values by primary key.

    Raises:
        ProofError: it gives something else.
    """
    for pk, known in canary.items():
        if fault := _canary_fault(column, pk, known):
            raise ProofError(f"{column.label}: the canary pk={pk} proves no key: {fault}. Nothing was written")


@sensitive_variables()
def _canary_fault(column: OldColumn, pk: Any, known: Any) -> str:
    row = column.rows().filter(pk=pk).first()
    if row is None:
        return "there is no such row, or the old column is NULL in it"
    if known is None or is_empty(known):
        return "its value is empty"
    try:
        value = column.read(row)
    except NotAValueError as exc:
        return f"the old field raises {exc}; give the old library the key that the row is under"
    if value != known:
        return (
            "the old field gives another value than the one that you name; if yours is right, give the old library "
            "the key that the row is under"
        )
    if is_given_back(value, column.raw(row)):
        return "its value is what the column holds, which needs no key; name a row that is encrypted, and its plaintext"
    return ""


def require_sample(column: OldColumn, least: float) -> None:
    """Require that nearly all values of a random sample are plausible.

    Args:
        column: the old one.
        least: the least share of them that must be, above 0 and up to 1.

    Raises:
        ProofError: fewer are.
    """
    column.shortest = None
    seen = list(_sample(column))
    column.shortest = min((each.length for each in seen if each.length and not each.fault), default=None)
    faults = {each.pk: each.fault or NOT_EMPTY for each in seen if each.fault or _is_hollow(each, column.shortest)}
    looked_at = sum(not each.is_empty or each.pk in faults for each in seen)
    if looked_at - len(faults) >= least * looked_at:
        return
    named = "; ".join(f"pk={pk}: {fault}" for pk, fault in list(faults.items())[:_MOST_NAMED])
    raise ProofError(
        f"{column.label}: only {looked_at - len(faults)} of {looked_at} values of a random sample are plausible, and "
        f"{least:.0%} must be. Nothing was written. Give the old library its right key; if it has it, clear such rows, "
        f"or see plausible=, accept= and least=. For example {named}"
    )


def _sample(column: OldColumn) -> Iterator[_Seen]:
    """Yield what is seen of random values, until so many of them are not empty as a proof takes."""
    found = 0
    keys = list(column.rows().order_by("?").values_list("pk", flat=True)[:_MOST_DRAWN])
    for start in range(0, len(keys), _DRAWN_AT_ONCE):
        for row in column.rows().filter(pk__in=keys[start : start + _DRAWN_AT_ONCE]):
            seen = _look_at(column, row)
            yield seen
            found += not seen.is_empty
            if found == SAMPLE:
                return


def _is_hollow(seen: _Seen, shortest: int | None) -> bool:
    return seen.is_empty and shortest is not None and seen.length > shortest


@sensitive_variables()
def _look_at(column: OldColumn, row: models.Model) -> _Seen:
    length = column.length(row)
    try:
        return _Seen(row.pk, length, is_empty=is_empty(column.value(row)))
    except NotAValueError as exc:
        return _Seen(row.pk, length, fault=str(exc))
