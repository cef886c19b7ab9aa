"""The header ``Range``. Source: RFC 9110, section 14."""

from __future__ import annotations

import re

_SINGLE = re.compile(r"bytes=[ \t]*([0-9]{0,100})-([0-9]{0,100})[ \t]*", re.IGNORECASE)


class UnsatisfiableRangeError(Exception):
    """The range has no byte of the content: the answer is a 416."""


def find_range(header: str, length: int) -> tuple[int, int] | None:
    """Return the offsets of the first byte and of the one behind the last, or None to send the whole.

    Several ranges, and what is no range, are answered with the whole, as a server may.

    Args:
        header: ``bytes=0-99``, ``bytes=100-`` or ``bytes=-100``.
        length: that of the content, in bytes.

    Raises:
        UnsatisfiableRangeError: it begins behind the end, or is of no length.
    """
    match = _SINGLE.fullmatch(header)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first and last and int(first) > int(last):
        return None
    start = int(first) if first else max(length - int(last), 0)
    stop = min(int(last) + 1, length) if first and last else length
    if start >= stop:
        raise UnsatisfiableRangeError
    return start, stop
