"""What DynamoDB's ``BatchGetItem`` answers, asked for until all of it is there.

An answer names the keys that it left out: those that were too much for it, or for the table's throughput.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django_asherah.exceptions import MetastoreError

KEYS_PER_REQUEST = 100
"""Keys that one ``BatchGetItem`` may ask for."""

IDLE_ATTEMPTS = 8
"""How often in a row an answer may hold not a single item of those that are there before it is given up."""

_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
"""Seconds at most before a batch is asked for again; twice as long each time that it has brought nothing."""


def get_in_batches(
    ask: Callable[[Sequence[Any]], tuple[Sequence[Any], Sequence[Any]]],
    keys: Sequence[Any],
    table: str,
    *,
    sleep: Callable[[float], None],
    random: Callable[[], float],
) -> Iterator[Any]:
    """Yield the items with these keys, in no order.

    Args:
        ask: returns items of at most 100 keys, and those keys that were left out.
        keys: of any number.
        table: its name, for the error.
        sleep: waits for that many seconds.
        random: returns a number from 0 up to 1, by which a pause is cut: processes shall not all ask again at once.

    Raises:
        MetastoreError: the table is throttled: eight times in a row every key was left out.
    """
    waiting, idle = list(keys), 0
    while waiting:
        asked = waiting[:KEYS_PER_REQUEST]
        items, left = ask(asked)
        yield from items
        idle = idle + 1 if len(left) >= len(asked) else 0
        if idle >= IDLE_ATTEMPTS:
            raise MetastoreError(
                f"{table} is throttled: asked {idle} times in a row, it gave none of the keys. Raise its read "
                "capacity, or use on-demand capacity"
            )
        if left:
            sleep(min(_PAUSE * 2**idle, _LONGEST_PAUSE) * random())
        waiting = [*left, *waiting[KEYS_PER_REQUEST:]]
