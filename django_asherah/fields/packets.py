"""What one statement may hold: MySQL and MariaDB take no more than ``max_allowed_packet`` bytes.

The server closes the connection on whoever sends more, and so a record that is too long is refused before it is sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django_asherah.exceptions import EncryptionError

ALWAYS_ALLOWED = 16_384
"""Bytes, MySQL's ``net_buffer_length``: a smaller ``max_allowed_packet`` changes nothing."""

_REST = 2_000
"""Bytes that are left for the rest of a statement, such as the names of its table and columns."""

_ESCAPED = (b'"', b"'", b"\\", b"\0", b"\n", b"\r", b"\x1a")
"""Source: ``mysql_real_escape_string()``, which puts a backslash before each of these."""

_LIMIT, _SENT = "django_asherah_packet_limit", "django_asherah_sent"


def find_excess(connection: Any, values: Iterable[Any]) -> str:
    """Return why no statement can hold these values together, or nothing.

    Args:
        connection: Django's, of whatever database.
        values: the records and other long values of one statement.
    """
    return _find_excess(connection, sum(map(_length, values))) if connection.vendor == "mysql" else ""


def count_record(field: Any, record: Any, compiler: Any, connection: Any) -> None:
    """Add a record of ``field`` to what the statement that ``compiler`` writes for MySQL or MariaDB holds already.

    Raises:
        EncryptionError: the statement has become longer than the server's ``max_allowed_packet``.
    """
    state = compiler.__dict__
    sent = state[_SENT] = state.get(_SENT, 0) + _length(record)
    if excess := _find_excess(connection, sent):
        raise EncryptionError(
            f"{field.full_name}: its record is too long for one statement: {excess}. Nothing was sent. Raise that, or "
            "give bulk_create() or bulk_update() a smaller batch_size"
        )


def _length(value: Any) -> int:
    """Return no more than the bytes that a value takes in a statement; 0 for what is no text."""
    if value.__class__ not in (str, bytes):
        return 0
    if len(value) <= ALWAYS_ALLOWED:  # To look for what is escaped takes longer than it matters.
        return len(value)
    text = value.encode() if isinstance(value, str) else bytes(value)
    return len(text) + sum(text.count(each) for each in _ESCAPED)


def _find_excess(connection: Any, length: int) -> str:
    if length <= ALWAYS_ALLOWED:
        return ""
    limit = connection.__dict__.get(_LIMIT)
    # A server's limit is the session's until that ends; Django's wrapper may have another session by now.
    if limit is None or limit[0] is not connection.connection:
        limit = connection.__dict__[_LIMIT] = (connection.connection, _read_limit(connection))
    if length + _REST < limit[1]:
        return ""
    return (
        f"what it holds takes {length} bytes, and the server of database {connection.alias!r} takes {limit[1]} "
        "(max_allowed_packet)"
    )


def _read_limit(connection: Any) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@max_allowed_packet")
        return int(cursor.fetchone()[0])
