"""Rows whose column ``created`` says another time than their record, by the offset of a time zone.

A ``TIMESTAMP`` of MySQL and MariaDB, and a ``timestamp`` of PostgreSQL, hold what the session's time zone makes of a
time. The record's own ``Created`` depends on no zone, so it is the one to trust. Where the two differ by something that
is no zone's offset, no session has done that: such a row is none of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from heapq import heappop, heappush
from itertools import groupby

from django_asherah.envelope.records import MAX_CREATED, KeyMeta, decode_key
from django_asherah.exceptions import InvalidRecordError

MAX_SHIFT = 26 * 60 * 60
"""How far, in seconds, two sessions can put the same time apart: zones go from -12:00 to +14:00."""

_QUARTER = 15 * 60
"""Seconds. Every zone's offset is a multiple of it."""

NO_TIME = -(2**53)
"""Stands for a column ``created`` that is no time: further from every key's time than any shift."""

Row = tuple[str, str | bytes, int]
"""A key id, its record's text, and its column ``created`` as UTC in Unix seconds; or :data:`NO_TIME`."""

_NOT_A_TIME = "its column 'created' is no time that a key can have, so that nothing written under it could be read"
_REMOVE = "correct that, or remove the row"


def created_of(row: Row) -> int | None:
    """Return the time that a row's record says; None if it can't be read, or no time zone explains the column."""
    try:
        created = decode_key(row[1]).created
    except InvalidRecordError:
        return None
    shift = abs(row[2] - created)
    return created if shift <= MAX_SHIFT and not shift % _QUARTER else None


def fault_of(row: Row, *, has_zones: bool) -> str:
    """Return why nothing may be written under the key of this row though its record can be read; nothing if it may.

    Args:
        row: the row.
        has_zones: whether the database's sessions have time zones.
    """
    if row[2] == NO_TIME:
        return f"{_NOT_A_TIME}: {_REMOVE}"
    try:
        created = decode_key(row[1]).created
    except InvalidRecordError:
        return ""  # Whoever decodes it says why.
    return "" if has_zones and created_of(row) is not None else fault_between(created, row[2])


def fault_between(created: int, stored: int | Decimal) -> str:
    """Return what to say of a row whose column is ``stored``, and whose record says ``created``; nothing if the same.

    Both are in Unix seconds.
    """
    if created == stored:
        return ""
    moment = datetime.fromtimestamp(created, UTC)
    return (
        f"it is stored as created {stored}, but its record says {created} ({moment:%Y-%m-%d %H:%M:%S} UTC), "
        f"so that nothing written under it could be read: {_REMOVE}"
    )


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

    What no time zone has put into a key's own place is passed over: it may hide no good key. Of two keys of one name,
    it is the one in its own place, or else the last: always the same, or values of the other could be written.
    """
    found: dict[KeyMeta, Row] = {}
    wanted = set(metas)
    for row in sorted(rows, key=lambda row: row[2], reverse=True):
        created = created_of(row)
        if created is None or (meta := KeyMeta(row[0], created)) not in wanted:
            continue
        if meta not in found or row[2] == created:
            found[meta] = row
    return found


def in_order(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield rows that come by id and column, the greatest first, by id and key, the newest first.

    Holds no more than the rows of one id that were stored within twice :data:`MAX_SHIFT`.
    """
    held: list[tuple[int, int, Row]] = []
    for number, row in enumerate(rows):
        if row[2] == NO_TIME:
            yield row
            continue
        while held and (held[0][2][0] != row[0] or -held[0][0] > row[2] + MAX_SHIFT):
            yield heappop(held)[2]
        heappush(held, (-_place_of(row), number, row))
    while held:
        yield heappop(held)[2]


def with_others_of_their_names(rows: Iterable[Row]) -> Iterator[tuple[Row, bool]]:
    """Yield rows that come in the order of :func:`in_order`, and whether :func:`pick` takes another for its name."""
    for (key_id, place), same in groupby(rows, key=lambda row: (row[0], _place_of(row))):
        held = list(same)
        chosen = pick(held, [KeyMeta(key_id, place)]) if len(held) > 1 else {}
        for row in held:
            yield row, created_of(row) is not None and chosen.get(KeyMeta(key_id, place), row) is not row


def _place_of(row: Row) -> int:
    """Return where a row stands among those of its id: the time of its key, or what its column says."""
    created = created_of(row)
    return row[2] if created is None else created
