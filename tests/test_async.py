"""Code that runs in an event loop: views, consumers, anything that awaits. Django refuses it every query."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient
from django.urls import path
from pytest_django import Settings

from django_asherah import engine, lifecycle
from django_asherah.envelope.records import KeyMeta
from django_asherah.guard import partition_guard
from django_asherah.kms.static import StaticKMS
from tests.databases import as_asherah, close_connections, wait_until
from tests.testapp.models import Document, Note

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__)]

SK_ID = "_SK_suite_tests"


async def seal_and_open(request: HttpRequest) -> HttpResponse:
    """Seal and open what was posted, as code does that knows nothing of event loops."""
    session = engine.get_session()
    return HttpResponse(session.decrypt(session.encrypt(request.body)))


async def await_both(request: HttpRequest) -> HttpResponse:
    session = engine.get_session()
    return HttpResponse(await session.adecrypt(await session.aencrypt(request.body)))


async def save_and_get(request: HttpRequest) -> HttpResponse:
    note, _ = await Note.objects.aget_or_create(title="one")
    engine.get_factory().require_checks()
    note.body = request.body.decode()
    await note.asave()
    engine.get_factory().require_checks()
    return HttpResponse((await Note.objects.aget(title="one")).body)


urlpatterns = [path("sync", seal_and_open), path("await", await_both), path("rows", save_and_get)]


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    return async_to_sync(work)()


def warm() -> str:
    """Have the keys in hand; return a record under them."""
    record = engine.get_session().encrypt(b"x")
    engine.get_session().decrypt(record)
    return record


def key_of(record: str) -> KeyMeta:
    return engine.get_session().read(record).key.parent_key_meta


def settle() -> None:
    """Wait until every check that runs in a thread is done."""
    factory = engine.get_factory()
    wait_until(
        lambda: not any(ring._checks._pending.get().checks for ring in (factory.intermediate_keys, factory.system_keys))
    )


@pytest.fixture
def connected() -> Iterator[list[tuple[str, BaseDatabaseWrapper]]]:
    """Every connection that is opened, and the name of the thread that opened it."""
    opened: list[tuple[str, BaseDatabaseWrapper]] = []

    def note(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
        opened.append((threading.current_thread().name, connection))

    connection_created.connect(note)
    yield opened
    connection_created.disconnect(note)


def test_a_view_reads_and_seals_through_every_check(connected: list[tuple[str, BaseDatabaseWrapper]]) -> None:
    warm()

    async def work() -> None:
        for number in range(5):
            engine.get_factory().require_checks()
            answer = await AsyncClient().post("/sync", b"%d" % number, content_type="text/plain")
            assert (answer.status_code, answer.content) == (200, b"%d" % number)
            settle()

    run(work)
    checking = [connection for thread, connection in connected if thread == "django_asherah.checks"]
    assert len(checking) >= 5
    wait_until(lambda: all(connection.connection is None for connection in checking))


@pytest.mark.parametrize("id_of", [lambda record: key_of(record).key_id, lambda record: SK_ID])
def test_a_process_that_runs_nothing_but_async_code_notices_a_revocation(id_of: Callable[[str], str]) -> None:
    old = warm()
    factory = engine.get_factory()
    engine.reset()
    newest = factory.metastore.load_latest(id_of(old))
    assert newest is not None
    warm()
    running = engine.get_factory()
    with engine.own_keys():
        lifecycle.revoke(id_of(old), newest.created)

    async def work() -> str:
        running.require_checks()
        engine.get_session().decrypt(old)
        settle()
        return engine.get_session().encrypt(b"y")

    new = run(work)
    assert key_of(new).created > key_of(old).created
    assert [engine.get_session().decrypt(record) for record in (old, new)] == [b"x", b"y"]


def test_without_a_key_in_hand_the_error_says_what_to_await() -> None:
    record = warm()

    async def work() -> None:
        session = engine.get_session()
        for call in (lambda: session.encrypt(b"y"), lambda: session.decrypt(record)):
            engine.get_factory().clear()
            with pytest.raises(SynchronousOnlyOperation, match=r"database 'default'.*aencrypt\(.*adecrypt\("):
                call()
        assert await session.adecrypt(record) == b"x"
        assert session.decrypt(record) == b"x"

    run(work)


def test_a_view_that_awaits_needs_no_key_in_hand() -> None:
    async def work() -> None:
        for number in range(3):
            engine.get_factory().clear()
            answer = await AsyncClient().post("/await", b"%d" % number, content_type="text/plain")
            assert (answer.status_code, answer.content) == (200, b"%d" % number)

    run(work)


def test_rows_are_saved_and_read_at_a_check() -> None:
    warm()

    async def work() -> None:
        for number in range(3):
            answer = await AsyncClient().post("/rows", b"%d" % number, content_type="text/plain")
            assert (answer.status_code, answer.content) == (200, b"%d" % number)

    run(work)
    assert Note.objects.get().body == "2"


def test_what_was_loaded_long_ago_is_opened_at_a_check() -> None:
    Note.objects.create(title="t", body="text", other_body="other")
    Document.objects.create(doc={"a": [1]})

    async def work() -> None:
        note, document = await Note.objects.aget(), await Document.objects.aget()
        engine.get_factory().require_checks()
        assert (note.body, note.other_body, document.doc) == ("text", "other", {"a": [1]})
        settle()

    run(work)


def test_keys_of_many_partitions_are_in_hand_at_a_check() -> None:
    names = [f"p{number}" for number in range(10)]
    keys = engine.get_factory().current_keys(names)

    async def work() -> None:
        factory = engine.get_factory()
        factory.require_checks()
        assert factory.current_keys(names) == keys
        assert set(factory.load_keys(key.meta for key in keys.values()).values()) == set(keys.values())
        settle()
        assert factory.current_keys(names) == keys

    run(work)


@pytest.mark.parametrize("is_cold", [True, False])
def test_a_thousand_at_once(is_cold: bool) -> None:
    record = warm()

    async def work() -> None:
        session, factory = engine.get_session(), engine.get_factory()
        factory.clear() if is_cold else factory.require_checks()
        payloads = [b"%d" % number for number in range(500)]
        records = await asyncio.gather(*map(session.aencrypt, payloads))
        factory.clear() if is_cold else factory.require_checks()
        assert await asyncio.gather(*map(session.adecrypt, [*records, record])) == [*payloads, b"x"]
        settle()

    run(work)


def test_a_guard_holds_for_what_is_awaited() -> None:
    async def work() -> None:
        with partition_guard("default"):
            record = await engine.get_session().aencrypt(b"x")
            assert await engine.get_session().adecrypt(record) == b"x"

    run(work)


def test_a_key_that_a_transaction_has_yet_to_commit_is_looked_at_where_the_transaction_is() -> None:
    """As in an async test of Django's ``TestCase``, which is inside of one."""

    async def work() -> None:
        session = engine.get_session()
        records = [await session.aencrypt(b"x") for _ in range(3)]
        assert [await session.adecrypt(record) for record in records] == [b"x"] * 3
        await Note.objects.acreate(body="y")
        assert (await Note.objects.aget()).body == "y"

    with transaction.atomic():
        run(work)
        transaction.set_rollback(True)


def test_where_django_was_told_to_allow_it_a_loop_is_like_any_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook, for one."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")

    async def work() -> None:
        session = engine.get_session()
        record = session.encrypt(b"x")
        engine.get_factory().require_checks()
        assert session.decrypt(record) == b"x"
        assert not engine.get_factory().intermediate_keys._checks._pending.get().checks
        close_connections()

    asyncio.run(work())


class StallingKMS(StaticKMS):
    """A KMS that answers once it is let."""

    asked = threading.Event()
    answers = threading.Event()
    calls = 0

    def __init__(self, settings: Any) -> None:
        super().__init__(b"k" * 32)

    def encrypt_key(self, key: bytes | bytearray) -> bytes:
        StallingKMS.calls += 1
        self.asked.set()
        assert self.answers.wait(60)
        return super().encrypt_key(key)


def test_a_task_that_is_cancelled_while_the_kms_stalls_holds_up_nobody(settings: Settings) -> None:
    settings.ASHERAH = as_asherah(
        KMS="tests.test_async.StallingKMS", KMS_OPTIONS={}, REVOKE_CHECK_INTERVAL=timedelta(seconds=30)
    )
    session = engine.get_session()

    async def work() -> None:
        for call in (session.aencrypt, session.aencrypt_compact):
            task = asyncio.create_task(call(b"x"))
            await asyncio.to_thread(StallingKMS.asked.wait, 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        StallingKMS.answers.set()
        assert await session.adecrypt(await session.aencrypt(b"y")) == b"y"
        assert session.decrypt(session.encrypt(b"z")) == b"z"
        await sync_to_async(close_connections)()

    asyncio.run(work())
    assert StallingKMS.calls == 1
    assert len(list(engine.get_factory().metastore.versions(SK_ID))) == 1  # type: ignore[attr-defined]
