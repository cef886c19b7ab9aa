"""Inside a process that is to be killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection


@contextmanager
def statement_limit(limit: int) -> Iterator[None]:
    """Kill this process before it sends one more than ``limit`` updates of the table; never if it is negative."""
    left = limit

    def count(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal left
        if "UPDATE" in sql and "movedapp_thing" in sql:
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        return execute(sql, params, many, context)

    with connection.execute_wrapper(count):
        yield
