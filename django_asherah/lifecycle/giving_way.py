"""Doing a transaction again that a database broke off for somebody else's locks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from django.db import DatabaseError, OperationalError, connections

from django_asherah.lifecycle.database_errors import lock_of

Result = TypeVar("Result")

TRIES = 5
"""How often something is done before it is given up. There is no pause: the database has waited already."""


class HeldError(OperationalError):
    """Others have held what was needed each time.

    Attributes:
        reason: how the database put it.
    """

    def __init__(self, what: str, reason: str, tries: int = TRIES) -> None:
        super().__init__(
            f"{what}: {reason}. Tried {tries} times, and nothing of this was changed; run it again, and it goes on "
            "where it stopped"
        )
        self.reason = reason


def insist(alias: str, work: Callable[[], Result], what: str) -> Result:
    """Return what ``work`` returns, which is one transaction in itself and may be done again.

    Inside the caller's own transaction it is done once, because that is what the database broke off.

    Args:
        alias: the database.
        work: what to do.
        what: its name for people, with the primary keys.

    Raises:
        HeldError: each try was broken off. It shows no value, and hangs on no error that does.
    """
    if connections[alias].in_atomic_block:
        return work()
    reason = ""
    for _ in range(TRIES):
        try:
            return work()
        except DatabaseError as exc:
            reason = exc.reason if isinstance(exc, HeldError) else lock_of(exc)
            if not reason:
                raise
    raise HeldError(what, reason)
