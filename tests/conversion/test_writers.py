"""Others write to the column while it is moved."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections, models

from django_asherah import engine
from django_asherah.exceptions import EncryptionError
from django_asherah.lifecycle.conversion import encrypt_column
from tests.conversion.conftest import Table
from tests.conversion.test_encrypt import encrypted
from tests.databases import VENDOR, as_asherah, execute

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def alias(shared_alias: str, settings: Any) -> str:
    settings.ASHERAH = as_asherah(DATABASE=shared_alias)
    if VENDOR == "sqlite":  # For this thread's connection, and for those to come.
        execute(shared_alias, "PRAGMA busy_timeout = 20000")
        connections.settings[shared_alias]["OPTIONS"]["timeout"] = 20
    return shared_alias


def test_a_value_that_others_write_each_time_before_it_is_replaced_is_left_and_named(
    make_table: Callable[..., Table],
) -> None:
    table = make_table(models.TextField())
    (row,) = table.save("0")
    table.state = encrypted(table)
    written = ["0"]

    def write_first(execute_it: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("UPDATE") and params != [written[-1], row.pk]:
            written.append(str(len(written)))
            table.set_raw(row, written[-1])
        return execute_it(sql, params, many, context)

    with (
        connections[table.alias].execute_wrapper(write_first),
        pytest.raises(EncryptionError, match=f"pk={row.pk}: others keep writing it"),
    ):
        encrypt_column(table.column)
    assert table.raw() == [written[-1]]
    encrypt_column(table.column)
    assert engine.get_session().decrypt(table.raw()[0]).decode() == written[-1]


def test_writers_and_the_move_at_once_lose_nothing(make_table: Callable[..., Table]) -> None:
    table = make_table(models.TextField())
    rows = table.save(*(f"{number} 0" for number in range(20)))
    table.state = encrypted(table)
    last = {row.pk: f"{number} 0" for number, row in enumerate(rows)}

    def write() -> None:
        try:
            for turn in range(1, 15):
                for number, row in enumerate(rows):
                    last[row.pk] = f"{number} {turn}"
                    table.set_raw(row, last[row.pk])
        finally:
            connections.close_all()

    writer = threading.Thread(target=write)
    writer.start()
    while True:
        alive = writer.is_alive()
        try:
            encrypt_column(table.column)
        except EncryptionError:
            continue
        if not alive:
            break
    writer.join()
    session = engine.get_session()
    assert [session.decrypt(raw).decode() for raw in table.raw()] == [last[row.pk] for row in rows]
