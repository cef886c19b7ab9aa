"""Tests empty tables behind the engine's back: its keys must not outlive their rows.

``TransactionTestCase`` flushes the database after each test, and with ``serialized_rollback`` or ``available_apps`` it
sends no ``post_migrate`` that would say so. So in Django's test environment each connection is watched for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core import mail
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from django_asherah import engine


def _watch(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    # The outbox is there once setup_test_environment() was called.
    if hasattr(mail, "outbox") and _notice not in connection.execute_wrappers:
        connection.execute_wrappers.append(_notice)


def _notice(execute: Callable[..., Any], statement: Any, parameters: Any, many: bool, context: Any) -> Any:
    if not _takes_keys_away(statement):
        return execute(statement, parameters, many, context)
    with engine.key_rows_changing():
        return execute(statement, parameters, many, context)


def _takes_keys_away(statement: Any) -> bool:
    text = str(statement)
    return "encryption_key" in text and text.lstrip().upper().startswith(("DELETE", "TRUNCATE"))


connection_created.connect(_watch, dispatch_uid="django_asherah.flushes")
