"""Tests empty tables behind the engine's back: its keys must not outlive their rows.

``TransactionTestCase`` flushes the database after each test, and with ``serialized_rollback`` or ``available_apps`` it
sends no ``post_migrate`` that would say so. So in Django's test environment each connection is watched for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from django.core import mail
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from django_asherah import engine

_TAKES_AWAY = re.compile(r"\b(delete|truncate)\b.*encryption_key", re.IGNORECASE | re.DOTALL)


def _watch(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    # The outbox is there once setup_test_environment() was called.
    if hasattr(mail, "outbox") and _notice not in connection.execute_wrappers:
        # First: whoever has added one for a block, in which the connection is opened, takes the last away at its end.
        connection.execute_wrappers.insert(0, _notice)


def _notice(execute: Callable[..., Any], statement: Any, parameters: Any, many: bool, context: Any) -> Any:
    if not _TAKES_AWAY.search(str(statement)):
        return execute(statement, parameters, many, context)
    connection: BaseDatabaseWrapper = context["connection"]
    try:
        return execute(statement, parameters, many, context)
    finally:
        engine.require_checks()
        if connection.in_atomic_block:  # Until it ends, others see the rows, and trust the keys again.
            connection.on_commit(engine.require_checks)


connection_created.connect(_watch, dispatch_uid="django_asherah.flushes")
