"""Tests that empty the key table by whatever statement, inside of a transaction too."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, transaction

from django_asherah import engine, flushes
from django_asherah.models import EncryptionKey
from tests.databases import VENDOR, close_connections
from tests.testapp.models import Note

pytestmark = pytest.mark.django_db(transaction=True)

STATEMENTS = [
    "DELETE FROM encryption_key",
    "delete from ENCRYPTION_KEY",
    "/* begin anew */ DELETE FROM encryption_key",
    "-- begin anew\nDELETE FROM encryption_key",
    "WITH one AS (SELECT 1) DELETE FROM encryption_key",
]
if VENDOR == "postgresql":
    STATEMENTS += [
        "TRUNCATE encryption_key CASCADE",
        "SET CONSTRAINTS ALL DEFERRED; DELETE FROM testapp_note; DELETE FROM encryption_key",
        "DO $$ BEGIN DELETE FROM encryption_key; END $$",
    ]
if VENDOR == "mysql":
    STATEMENTS = [statement for statement in STATEMENTS if "ENCRYPTION" not in statement and "WITH" not in statement]


def require_keys_in_the_table() -> None:
    pk = Note.objects.create(body="x").pk
    with engine.own_keys():
        assert Note.objects.get(pk=pk).body == "x"


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_keys_do_not_outlive_rows_that_any_statement_takes_away(statement: str) -> None:
    require_keys_in_the_table()
    execute(statement)
    require_keys_in_the_table()


def in_another_thread(work: Callable[[], Any]) -> Any:
    def work_and_close() -> Any:
        try:
            return work()
        finally:
            close_connections()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work_and_close).result(60)


def test_keys_that_a_thread_has_looked_at_before_the_commit_do_not_outlive_it() -> None:
    require_keys_in_the_table()
    with transaction.atomic():
        EncryptionKey.objects.all().delete()
        in_another_thread(engine.get_session().newest_key)
    require_keys_in_the_table()


def test_a_wrapper_within_which_a_connection_is_opened_ends_with_its_block() -> None:
    """Django takes the last of a connection's wrappers away, whichever that is."""

    def pass_on(execute: Callable[..., Any], *arguments: Any) -> Any:
        return execute(*arguments)

    def open_within() -> list[Any]:
        with connection.execute_wrapper(pass_on):
            Note.objects.exists()
        return list(connection.execute_wrappers)

    assert in_another_thread(open_within) == [flushes._notice]
