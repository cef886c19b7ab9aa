"""Database servers that are down, slow, read-only, full, or that break a write off: what is in hand goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, connections, transaction
from pytest_django import Settings

from django_asherah import engine, lifecycle
from django_asherah.exceptions import MetastoreError
from django_asherah.lifecycle.reencryption import Options
from django_asherah.testing import FakeKMS
from tests.databases import VENDOR, WAITING, as_asherah, close_connections, execute, in_thread, wait_until
from tests.faults.database_proxy import DatabaseProxy
from tests.testapp.models import Note

pytestmark = [
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(VENDOR == "sqlite", reason="SQLite has no server"),
]


@pytest.fixture
def database(make_alias: Callable[..., str], settings: Settings) -> Iterator[DatabaseProxy]:
    """The database under test by way of a proxy, as the alias ``far``, which is where the keys are."""
    proxy = DatabaseProxy()
    make_alias("far", HOST="127.0.0.1", PORT=proxy.port)
    settings.ASHERAH = as_asherah(DATABASE="far")
    yield proxy
    connections["far"].close()
    proxy.close()


def write(text: str) -> int:
    return int(Note.objects.create(body=text).pk)


def read(pk: int) -> str | None:
    return Note.objects.get(pk=pk).body


def forget() -> None:
    engine.get_factory().clear()


def require_nothing_lost(**texts: int) -> None:
    """Every value reads back, cold, and is all that there is."""
    forget()
    assert {note.body: note.pk for note in Note.objects.all()} == texts
    report = lifecycle.verify_data(["testapp.Note.body"])
    assert (report.bad, report.columns.total()) == ([], len(texts))
    assert lifecycle.verify_keys().problems == []


def test_with_the_key_table_out_of_reach_cached_keys_go_on(database: DatabaseProxy) -> None:
    before = write("before")
    database.go_down()

    meanwhile = write("meanwhile")
    assert [read(before), read(meanwhile)] == ["before", "meanwhile"]
    forget()
    for operation in (lambda: read(before), lambda: write("lost if it were written")):
        with pytest.raises(MetastoreError, match="key table 'encryption_key' of database 'far' failed"):
            operation()

    database.come_back()
    require_nothing_lost(before=before, meanwhile=meanwhile)


def test_an_event_loop_goes_on_through_a_stall_and_so_does_what_was_cancelled_in_it(database: DatabaseProxy) -> None:
    session, cold = engine.get_session(), engine.get_session("cold")
    record = session.encrypt(b"x")

    async def work() -> None:
        engine.get_factory().require_checks()
        with database.stalled():
            assert session.decrypt(record) == b"x"
            assert session.decrypt(await session.aencrypt(b"y")) == b"y"
            stalled = asyncio.create_task(cold.aencrypt(b"z"))
            while not cold._keys.cache._locks.get().loading.get("_IK_cold_suite_tests"):
                await asyncio.sleep(0.01)
            stalled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stalled
        assert await cold.adecrypt(await cold.aencrypt(b"z")) == b"z"
        await sync_to_async(close_connections)()

    asyncio.run(work())
    wait_until(lambda: not session._keys._checks._pending.get().checks)
    assert lifecycle.verify_keys().problems == []


def test_a_cold_start_that_can_not_store_its_key_asks_the_kms_once(database: DatabaseProxy, settings: Settings) -> None:
    """What is read goes by the connection that is open, and what is written by one of its own."""
    kms = FakeKMS("us-west-2")
    settings.ASHERAH = as_asherah(DATABASE="far", **kms.settings)
    execute("far", "SELECT 1")
    database.refuse_connections()
    for _ in range(4):
        with pytest.raises(MetastoreError, match="key table 'encryption_key' of database 'far' failed"):
            write("x")
        with pytest.raises(MetastoreError, match="key table 'encryption_key' of database 'far' failed"):
            engine.get_factory().current_keys(["p", "q"])
    assert kms.calls["us-west-2", "GenerateDataKey"] == 1

    database.come_back()
    require_nothing_lost(x=write("x"))
    assert kms.calls["us-west-2", "GenerateDataKey"] == 1


def test_a_slow_key_table_holds_up_nobody_whose_keys_are_in_hand(database: DatabaseProxy) -> None:
    before = write("before")

    with ThreadPoolExecutor(1) as pool:
        with database.stalled():
            waiting = pool.submit(in_thread, lambda: engine.get_session("another").encrypt(b"needs a key"))
            meanwhile = write("meanwhile")
            assert [read(before), read(meanwhile)] == ["before", "meanwhile"]
            assert not waiting.done()
        record = waiting.result(60)

    assert engine.get_session("another").decrypt(record) == b"needs a key"
    require_nothing_lost(before=before, meanwhile=meanwhile)


READ_ONLY = (
    {"options": "-c default_transaction_read_only=on"}
    if VENDOR == "postgresql"
    else {"init_command": "SET SESSION TRANSACTION READ ONLY"}
)


def test_a_read_only_key_table_serves_the_keys_it_has(make_alias: Callable[..., str], settings: Settings) -> None:
    before = write("before")
    settings.ASHERAH = as_asherah(DATABASE=make_alias("replica", OPTIONS=READ_ONLY))

    meanwhile = write("meanwhile")
    assert read(before) == "before"
    with pytest.raises(MetastoreError, match=r"(?i)read.only"):
        engine.get_session("another").encrypt(b"needs a key that there is not")
    with pytest.raises(MetastoreError, match=r"(?i)read.only"):
        engine.get_factory().intermediate_keys.rotate("_IK_default_suite_tests")

    assert read(write("after the failure")) == "after the failure"
    Note.objects.filter(pk__gt=meanwhile).delete()
    require_nothing_lost(before=before, meanwhile=meanwhile)


@pytest.mark.parametrize("words", [b"INSERT INTO ENCRYPTION_KEY", b"COMMIT"])
def test_a_connection_dropped_while_a_key_is_stored_is_an_error_and_the_next_write_uses_what_stands(
    database: DatabaseProxy, words: bytes
) -> None:
    database.cut_at(words)
    with pytest.raises(MetastoreError, match="database 'far' failed"):
        write("lost if it were written")
    assert database.has_cut
    database.cut_at(words)  # Now the intermediate key, if the system key stands.
    with pytest.raises(MetastoreError, match="database 'far' failed"):
        write("lost if it were written")
    assert database.has_cut

    require_nothing_lost(written=write("written"))


@pytest.mark.parametrize("words", [b"INSERT INTO", b"UPDATE "])
def test_a_connection_dropped_while_a_row_is_written_leaves_it_whole_or_as_it_was(
    database: DatabaseProxy, words: bytes
) -> None:
    row = Note.objects.using("far").create(body="old")
    database.cut_at(words)
    with pytest.raises(DatabaseError):
        if words == b"UPDATE ":
            Note.objects.using("far").filter(pk=row.pk).update(body="new")
        else:
            Note.objects.using("far").create(body="new")
    connections["far"].close()

    forget()
    assert {note.body for note in Note.objects.all()} <= {"old", "new"}
    assert lifecycle.verify_data(["testapp.Note.body"]).bad == []


def test_reencryption_whose_connection_is_dropped_goes_on_where_it_was(database: DatabaseProxy) -> None:
    pks = [write(f"text {number}") for number in range(6)]
    lifecycle.rotate()
    database.cut_at(b"UPDATE")
    with pytest.raises(DatabaseError):
        lifecycle.reencrypt(["testapp.Note.body"], alias="far", options=Options(batch=2))
    connections["far"].close()

    report = lifecycle.reencrypt(["testapp.Note.body"], alias="far", options=Options(batch=2))

    assert report.bad == []
    require_nothing_lost(**{f"text {number}": pk for number, pk in enumerate(pks)})
    assert lifecycle.reencrypt(["testapp.Note.body"]).rewritten.total() == 0


def test_a_reencryption_that_a_deadlock_breaks_off_is_done_again() -> None:
    first, second = write("first"), write("second")
    lifecycle.rotate()
    locked = threading.Event()

    def lock_the_second_and_then_the_first() -> None:
        with transaction.atomic():
            if VENDOR == "postgresql":  # Who notices first gives way.
                execute("default", "SET LOCAL deadlock_timeout = '60s'")
            else:  # Who has changed less gives way.
                Note.objects.bulk_create(Note(title="weight") for _ in range(50))
            execute("default", "UPDATE testapp_note SET title = 'kept' WHERE id = %s", [second])
            locked.set()
            # InnoDB makes its tables of locks anew only if nobody has read them for 0.1 seconds.
            wait_until(lambda: execute("default", WAITING) != [(0,)], every=0.2)
            execute("default", "UPDATE testapp_note SET title = 'kept' WHERE id = %s", [first])
            Note.objects.filter(title="weight").delete()

    if VENDOR == "postgresql":
        execute("default", "SET deadlock_timeout = '3s'")
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(in_thread, lock_the_second_and_then_the_first)
        assert locked.wait(30)
        report = lifecycle.reencrypt(["testapp.Note.body"])
        other.result(60)
    connections["default"].close()

    assert (report.bad, report.rewritten.total()) == ([], 2)
    assert set(Note.objects.values_list("title", flat=True)) == {"kept"}
    require_nothing_lost(first=first, second=second)


@pytest.mark.skipif(VENDOR != "postgresql", reason="Django pools PostgreSQL's connections only")
def test_a_pool_that_the_caller_has_emptied_stops_no_new_key(
    make_alias: Callable[..., str], settings: Settings
) -> None:
    pool: dict[str, Any] = {"min_size": 1, "max_size": 1, "timeout": 0.5}
    alias = make_alias("pooled", OPTIONS={"pool": pool}, CONN_MAX_AGE=0)
    settings.ASHERAH = as_asherah(DATABASE=alias)
    try:
        with transaction.atomic(using=alias):
            pk = Note.objects.using(alias).create(body="with keys of its own").pk
            in_thread(lambda: (forget(), engine.get_session().encrypt(b"by another thread that gets none of it")))
        require_nothing_lost(**{"with keys of its own": pk})
    finally:
        connections[alias].close()
        connections[alias].close_pool()
