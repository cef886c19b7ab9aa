"""A cursor for statements whose parameters are values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quiet_cursor(connection: Any) -> Iterator[Any]:
    """Yield a cursor whose statements are neither kept in ``connection.queries`` nor logged, even with ``DEBUG``."""
    connection.ensure_connection()
    with connection.wrap_database_errors:
        own = connection.create_cursor()
    with connection.make_cursor(own) as cursor:
        yield cursor
