"""Rows whose column ``created`` says another time than their record, by the offset of a time zone.

A ``TIMESTAMP`` of MySQL and MariaDB, and a ``timestamp`` of PostgreSQL, hold what the session's time zone makes of a
time. The record's own ``Created`` depends on no zone, so it is the one to trust. Where the two differ by something that
is no zone's offset, no session has done that: such a row is none of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from heapq import heappop, heappush

from django_asherah.envelope.records import MAX_CREATED, KeyMeta, decode_key
from django_asherah.exceptions import InvalidRecordError

MAX_SHIFT = 26 * 60 * 60
"""How far, in seconds, two sessions can put the same time apart: zones go from -12:00 to +14:00."""

_QUARTER = 15 * 60
"""Seconds. Every zone's offset is a multiple of it."""

Row = tuple[str, str | bytes, int]
"""A key id, its record's text, and its column ``created`` as UTC in Unix seconds."""


def created_of(row: Row) -> int | None:
    """Return the time that a row's record says; None if it can't be read, or no time zone explains the column."""
    try:
        created = decode_key(row[1]).created
    except InvalidRecordError:
        return None
    shift = abs(row[2] - created)
    return created if shift <= MAX_SHIFT and not shift % _QUARTER else None


def shifted_range(created: int) -> tuple[int, int]:
    """Return the first and the last second that the column of a key of this creation time may say."""
    return max(created - MAX_SHIFT, 0), min(created + MAX_SHIFT, MAX_CREATED)


def newest_of(rows: Sequence[Row]) -> Row | None:
    """Return the row of the newest key of one id.

    Args:
        rows: those of this id that were stored within :data:`MAX_SHIFT` of the last one, the last one first.
    """
    if len(rows) < 2 or created_of(rows[0]) is None:
        return rows[0] if rows else None
    return max(rows, key=lambda row: -1 if (created := created_of(row)) is None else created)


def pick(rows: Iterable[Row], metas: Iterable[KeyMeta]) -> dict[KeyMeta, Row]:
    """Return those of ``rows`` that hold the keys of these names, whatever their columns say.

    What stands in a key's own place and was put there by no time zone stays the answer for that key. Of two keys of one
    name, it is the one in its own place, or else the last: always the same, or values of the other could be written.
    """
    found: dict[KeyMeta, Row] = {}
    wanted, taken = set(metas), set()
    for row in sorted(rows, key=lambda row: row[2], reverse=True):
        created = created_of(row)
        if created is None:
            taken.add((row[0], row[2]))
        elif (meta := KeyMeta(row[0], created)) in wanted and (meta not in found or row[2] == created):
            found[meta] = row
    return {meta: row for meta, row in found.items() if (meta.key_id, meta.created) not in taken}


def in_order(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield rows that come by id and column, the greatest first, by id and key, the newest first.

    Holds no more than the rows of one id that were stored within twice :data:`MAX_SHIFT`.
    """
    held: list[tuple[int, int, Row]] = []
    for number, row in enumerate(rows):
        while held and (held[0][2][0] != row[0] or -held[0][0] > row[2] + MAX_SHIFT):
            yield heappop(held)[2]
        created = created_of(row)
        heappush(held, (-(row[2] if created is None else created), number, row))
    while held:
        yield heappop(held)[2]
