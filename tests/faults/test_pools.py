"""Poolers with fewer connections than there are threads: nobody waits for a key and keeps another from having it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.db import connections, transaction
from pytest_django import Settings

from django_asherah import engine
from django_asherah.envelope.records import KeyMeta
from django_asherah.exceptions import MetastoreError
from django_asherah.metastores.database import DatabaseMetastore
from tests.databases import VENDOR, as_asherah, execute, in_thread, record
from tests.deploy.pgbouncer import pgbouncer
from tests.testapp.models import Note

pytestmark = [
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(VENDOR != "postgresql", reason="PgBouncer and psycopg's pool are PostgreSQL's"),
]

THREADS = 16
FIRST = 10**9
"""The first row's primary key, which no sequence gives out."""

SIZES = pytest.mark.parametrize("size", [1, 2, 5])


@pytest.fixture(params=["PgBouncer", "psycopg's pool"])
def pooler(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def pooled(pooler: str, size: int, tmp_path: Path, make_alias: Callable[..., str]) -> Iterator[str]:
    """An alias of the database under test behind a pooler of so many connections."""
    if pooler == "PgBouncer":
        with pgbouncer(tmp_path, size) as port:
            yield make_alias("pooled", HOST="127.0.0.1", PORT=port, NAME="clinic", DISABLE_SERVER_SIDE_CURSORS=True)
            connections["pooled"].close()
        return
    pool = {"min_size": 1, "max_size": size, "timeout": 20}
    alias = make_alias("pooled", OPTIONS={"pool": pool}, CONN_MAX_AGE=0)
    yield alias
    connections[alias].close()
    connections[alias].close_pool()  # type: ignore[attr-defined]


@pytest.fixture
def direct(make_alias: Callable[..., str]) -> str:
    """The same database, beside the pooler."""
    return make_alias("direct")


def write(alias: str, number: int) -> int:
    return int(Note.objects.using(alias).create(body=f"text {number}").pk)


def create(alias: str, number: int) -> None:
    """As a request does that has talked to the database before it writes."""
    execute(alias, "SELECT 1")
    write(alias, number)


def update(alias: str, number: int) -> None:
    """As a request that begins with a write does."""
    assert Note.objects.using(alias).filter(pk=FIRST + number).update(body=f"text {FIRST + number}") == 1


def read(alias: str, number: int) -> None:
    assert Note.objects.using(alias).get(pk=FIRST + number).body == f"text {FIRST + number}"


def read_all(alias: str, number: int) -> None:
    notes = Note.objects.using(alias).filter(pk__gte=FIRST)
    assert {note.body for note in notes} == {f"text {FIRST + each}" for each in range(THREADS)}


def write_many(alias: str, number: int) -> None:
    Note.objects.using(alias).bulk_create([Note(body="one"), Note(body="two")])


def run_together(alias: str, request: Callable[[str, int], None], is_atomic: Callable[[int], bool]) -> None:
    """Let 16 threads make a request each at the same moment. Every one must succeed."""
    barrier = threading.Barrier(THREADS)

    def serve(number: int) -> None:
        barrier.wait(30)
        if is_atomic(number):
            with transaction.atomic(using=alias):
                request(alias, number)
        else:
            request(alias, number)

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(in_thread, lambda number=number: serve(number)) for number in range(THREADS)]:
            done.result(120)


ATOMIC: dict[str, Callable[[int], bool]] = {
    "ATOMIC_REQUESTS": lambda number: True,
    "half of them atomic": lambda number: bool(number % 2),
    "autocommit": lambda number: False,
}


def make_rows(text: str | None) -> None:
    for number in range(THREADS):
        Note.objects.create(pk=FIRST + number, body=text and f"{text} {FIRST + number}")


@SIZES
@pytest.mark.parametrize("how", ATOMIC)
def test_keys_that_are_there_need_no_further_connection(pooled: str, how: str, settings: Settings) -> None:
    settings.ASHERAH = as_asherah(DATABASE=pooled)
    make_rows("text")
    for request in (create, read, read_all, write_many, update):
        connections[pooled].close()
        engine.reset()
        run_together(pooled, request, ATOMIC[how])
        engine.get_factory().require_checks()
        connections[pooled].close()
        run_together(pooled, request, ATOMIC[how])


@SIZES
@pytest.mark.parametrize("how", ATOMIC)
def test_new_keys_need_one_more_for_a_moment_which_no_pooler_withholds(
    pooler: str, pooled: str, direct: str, how: str, settings: Settings
) -> None:
    make_rows(None)
    for request in (create, update, write_many):
        execute("default", "DELETE FROM encryption_key")
        settings.ASHERAH = as_asherah(DATABASE=direct if pooler == "PgBouncer" else pooled)
        connections[pooled].close()

        run_together(pooled, request, ATOMIC[how])

        assert execute("default", "SELECT COUNT(*) FROM encryption_key") == [(2,)]


@pytest.mark.parametrize("pooler", ["PgBouncer"], indirect=True)
@pytest.mark.parametrize("size", [1])
def test_a_pooler_that_has_none_left_for_a_new_key_is_an_error_that_says_so(pooled: str, settings: Settings) -> None:
    settings.ASHERAH = as_asherah(DATABASE=pooled)
    with transaction.atomic(using=pooled):
        execute(pooled, "SELECT 1")
        with pytest.raises(
            MetastoreError, match=r"within 10 seconds.*names? an alias that reaches the database beside"
        ):
            engine.get_session().encrypt(b"where no key is")

    assert engine.get_session().decrypt(engine.get_session().encrypt(b"now there is room")) == b"now there is room"


@pytest.mark.parametrize("pooler", ["PgBouncer"], indirect=True)
@pytest.mark.parametrize("size", [1])
def test_a_key_made_a_moment_ago_over_the_same_connection_of_the_server_needs_no_other(
    pooled: str, settings: Settings
) -> None:
    settings.ASHERAH = as_asherah(DATABASE=pooled)
    write(pooled, 1)
    engine.reset()
    with transaction.atomic(using=pooled):
        execute(pooled, "UPDATE testapp_note SET title = title")
        write(pooled, 2)


ROLE = f"asherah_pooled_{os.getpid()}"
"""Roles are of the server, and not of one database."""

STATES = {
    "search_path": (
        "CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.encryption_key (LIKE encryption_key INCLUDING ALL)",
        "SET search_path = elsewhere",
        "DROP SCHEMA elsewhere CASCADE",
    ),
    "SET ROLE": (f"CREATE ROLE {ROLE}", f"SET ROLE {ROLE}", f"DROP ROLE {ROLE}"),
}


@pytest.mark.parametrize("state", STATES)
def test_a_session_that_another_client_of_pgbouncer_has_set_stores_keys_where_they_are_read(
    tmp_path: Path, make_alias: Callable[..., str], state: str
) -> None:
    prepare, change, clean_up = STATES[state]
    execute("default", prepare)
    try:
        with pgbouncer(tmp_path, 1) as port:
            alias = make_alias("pooled", HOST="127.0.0.1", PORT=port, NAME="clinic", DISABLE_SERVER_SIDE_CURSORS=True)
            execute(alias, change)
            stored = in_thread(lambda: DatabaseMetastore(alias).store("_SK_s_p", record(120)))
            assert stored is True
            assert DatabaseMetastore(alias).load(KeyMeta("_SK_s_p", 120)) == record(120)
            assert DatabaseMetastore("default").load(KeyMeta("_SK_s_p", 120)) == record(120)
            connections[alias].close()
    finally:
        execute("default", clean_up)
