"""What the database metastore does when the database fails it: our errors, which say what to do, and no guesses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
from django.db import connections, transaction
from pytest_django import Settings

from django_asherah import engine
from django_asherah.envelope.records import KeyMeta, encode_key
from django_asherah.exceptions import InvalidRecordError, MetastoreError
from django_asherah.metastores.database import DatabaseMetastore
from django_asherah.testing import FakeKMS
from tests.databases import VENDOR, as_asherah, execute, in_thread, record, wait_until

TODAY = 1_795_478_400  # 2026-11-24T00:00:00Z
META = KeyMeta("_SK_s_p", TODAY)

servers_only = pytest.mark.skipif(VENDOR == "sqlite", reason="SQLite has no server")
postgresql_only = pytest.mark.skipif(VENDOR != "postgresql", reason="a feature of PostgreSQL")
mysql_only = pytest.mark.skipif(VENDOR != "mysql", reason="a feature of MySQL and MariaDB")


def operations(alias: str) -> list[Callable[[], Any]]:
    metastore = DatabaseMetastore(alias)
    return [
        lambda: metastore.load(META),
        lambda: metastore.load_latest("_SK_s_p"),
        lambda: metastore.store("_SK_s_p", record(TODAY)),
    ]


def kill(alias: str) -> int:
    """Let the server drop this thread's connection; return the connection's number there."""
    if VENDOR == "postgresql":
        [(number,)] = execute(alias, "SELECT pg_backend_pid()")
        in_thread(lambda: execute(alias, "SELECT pg_terminate_backend(%s)", [number]))
    else:
        [(number,)] = execute(alias, "SELECT CONNECTION_ID()")
        in_thread(lambda: execute(alias, f"KILL {number}"))
    return int(number)


def session_number(alias: str) -> int:
    statement = "SELECT pg_backend_pid()" if VENDOR == "postgresql" else "SELECT CONNECTION_ID()"
    return int(execute(alias, statement)[0][0])


@servers_only
@pytest.mark.parametrize("operation", [0, 1, 2])
def test_a_dropped_connection_is_renewed(alias: str, operation: int) -> None:
    dead = kill(alias)

    operations(alias)[operation]()

    connections[alias].close_if_unusable_or_obsolete()
    assert session_number(alias) != dead


@servers_only
@pytest.mark.parametrize("operation", [0, 1])
def test_a_dropped_connection_is_renewed_by_the_read_itself(alias: str, operation: int) -> None:
    DatabaseMetastore(alias).store("_SK_s_p", record(TODAY))
    kill(alias)

    assert operations(alias)[operation]() == record(TODAY)


@servers_only
@pytest.mark.parametrize("operation", [0, 1, 2])
def test_inside_a_transaction_a_dropped_connection_does_not_matter(alias: str, operation: int) -> None:
    metastore = DatabaseMetastore(alias)
    with pytest.raises(Exception, match=r"connection|gone away|Lost|server"), transaction.atomic(using=alias):
        execute(alias, "SELECT 1")
        kill(alias)
        operations(alias)[operation]()
        assert metastore.store("_IK_a_s_p", record(TODAY, 1)) is True
        execute(alias, "SELECT 1")
    connections[alias].close()

    assert metastore.load_latest("_IK_a_s_p") == record(TODAY, 1)


def test_what_the_caller_has_not_committed_survives_a_failure(empty_alias: str) -> None:
    execute(empty_alias, "CREATE TABLE mine (number INT)")
    transaction.set_autocommit(False, using=empty_alias)
    try:
        execute(empty_alias, "INSERT INTO mine VALUES (1)")
        for operation in operations(empty_alias):
            with pytest.raises(MetastoreError):
                operation()
        assert execute(empty_alias, "SELECT number FROM mine") == [(1,)]
    finally:
        transaction.rollback(using=empty_alias)
        transaction.set_autocommit(True, using=empty_alias)


@pytest.mark.parametrize("operation", [0, 1, 2])
@pytest.mark.parametrize("atomic", [False, True])
def test_without_the_table_the_error_says_what_to_run(empty_alias: str, operation: int, atomic: bool) -> None:
    with pytest.raises(MetastoreError) as caught:
        if atomic:
            with transaction.atomic(using=empty_alias):
                operations(empty_alias)[operation]()
        else:
            operations(empty_alias)[operation]()

    message = str(caught.value)
    assert "key table 'encryption_key' of database 'empty' failed" in message
    assert "Is the database migrated? 'manage.py check --database empty' says" in message
    assert "\n" not in message
    assert caught.value.__cause__ is not None


CONSTRAINED = """
    CREATE TABLE encryption_key (
        id VARCHAR(255) NOT NULL,
        created {created} NOT NULL,
        key_record TEXT NOT NULL,
        {constraint},
        PRIMARY KEY (id, created)
    )"""
CREATED = "timestamptz" if VENDOR == "postgresql" else "DATETIME"


@pytest.mark.parametrize(
    "constraint", ["CHECK (id <> '_SK_s_p')", "tenant INT NOT NULL DEFAULT 1 UNIQUE"], ids=["check", "unique"]
)
def test_an_integrity_error_that_is_no_duplicate_is_an_error(empty_alias: str, constraint: str) -> None:
    execute(empty_alias, CONSTRAINED.format(created=CREATED, constraint=constraint))
    metastore = DatabaseMetastore(empty_alias)
    metastore.store("_IK_a_s_p", record(TODAY))

    with pytest.raises(MetastoreError, match="IntegrityError"):
        metastore.store("_SK_s_p", record(TODAY))

    assert metastore.load_latest("_SK_s_p") is None


@pytest.mark.skipif(VENDOR == "mysql", reason="MySQL tells a duplicate by an error, which needs a constraint")
def test_a_table_that_keeps_nothing_unique_is_refused(empty_alias: str) -> None:
    execute(empty_alias, f"CREATE TABLE encryption_key (id VARCHAR(255), created {CREATED}, key_record TEXT)")

    with pytest.raises(MetastoreError, match=r"manage\.py check --database|ON CONFLICT"):
        DatabaseMetastore(empty_alias).store("_SK_s_p", record(TODAY))


GARBAGE = {
    "null": (None, "expected text, got NoneType"),
    "empty": ("", "truncated"),
    "not JSON": ("gAAAAABl", "malformed"),
    "a list": ("[]", "Expected `object`, got `array`"),
    "JSON null": ("null", "Expected `object`, got `null`"),
    "no members": ("{}", "missing required field `Created`"),
    "a short key": ('{"Created":1795478400,"Key":"AAAA"}', "length >= 60"),
    "no base64": (f'{{"Created":1795478400,"Key":"{"%" * 84}"}}', "base64"),
    "a float": ('{"Created":1795478400.5,"Key":"AAAA"}', "Expected `int`"),
    "a negative time": ('{"Created":-1,"Key":"AAAA"}', ">= 0"),
    "over-long": (f'{{"Created":1795478400,"Key":"{"A" * 60_000}"}}', "over the limit of"),
    "deep": ("[" * 10_000, "not a"),
}


@pytest.mark.parametrize(("key_record", "reason"), GARBAGE.values(), ids=GARBAGE)
def test_a_row_that_holds_no_key_record_is_named_and_not_taken_for_absent(
    empty_alias: str, key_record: str | None, reason: str
) -> None:
    execute(empty_alias, f"CREATE TABLE encryption_key (id VARCHAR(255), created {CREATED}, key_record TEXT)")
    execute(
        empty_alias,
        "INSERT INTO encryption_key (id, created, key_record) VALUES (%s, %s, %s)",
        ["_SK_s_p", "2026-11-24 00:00:00", key_record],
    )
    metastore = DatabaseMetastore(empty_alias)

    with pytest.raises(InvalidRecordError) as latest:
        metastore.load_latest("_SK_s_p")
    with pytest.raises(InvalidRecordError) as exact:
        metastore.load(META)

    assert str(latest.value).startswith("key _SK_s_p (latest) in database 'empty': ")
    assert str(exact.value).startswith("key _SK_s_p created 1795478400 in database 'empty': ")
    for error in (latest.value, exact.value):
        assert reason in str(error)
        assert len(str(error)) < 250


@pytest.mark.skipif(VENDOR != "sqlite", reason="the other databases keep such values out")
@pytest.mark.parametrize("value", ["CAST(X'ff7b7d' AS TEXT)", "X'00'", "42", "4.2"])
def test_sqlite_may_hold_anything_in_any_column(empty_alias: str, value: str) -> None:
    execute(empty_alias, "CREATE TABLE encryption_key (id TEXT, created TIMESTAMP, key_record)")
    execute(empty_alias, f"INSERT INTO encryption_key VALUES ('_SK_s_p', '2026-11-24 00:00:00', {value})")

    with pytest.raises(InvalidRecordError, match="key _SK_s_p"):
        DatabaseMetastore(empty_alias).load(META)


def test_an_error_repeats_no_record(empty_alias: str) -> None:
    execute(empty_alias, CONSTRAINED.format(created=CREATED, constraint="CHECK (id <> '_SK_s_p')"))
    secret = record(TODAY, 77)

    with pytest.raises(MetastoreError) as caught:
        DatabaseMetastore(empty_alias).store("_SK_s_p", secret)

    sealed = encode_key(secret).split('"Key":"')[1][:20]
    assert sealed not in str(caught.value)


@pytest.fixture
def pooled(make_alias: Callable[..., str]) -> Iterator[str]:
    alias = make_alias("pooled", OPTIONS={"pool": {"min_size": 1, "max_size": 1, "timeout": 1}}, CONN_MAX_AGE=0)
    yield alias
    connections[alias].close()
    cast(Any, connections[alias]).close_pool()


@postgresql_only
def test_a_pool_that_the_caller_has_emptied_does_not_matter(pooled: str) -> None:
    metastore = DatabaseMetastore(pooled)

    with transaction.atomic(using=pooled):
        execute(pooled, "SELECT 1")
        assert metastore.store("_SK_s_p", record(TODAY)) is True
        assert metastore.load_latest("_SK_s_p") == record(TODAY)

    assert metastore.load_latest("_SK_s_p") == record(TODAY)


@postgresql_only
def test_a_pool_that_others_have_emptied_does_not_matter_either(pooled: str) -> None:
    taken, done = threading.Event(), threading.Event()

    def take() -> None:
        with transaction.atomic(using=pooled):
            execute(pooled, "SELECT 1")
            taken.set()
            done.wait(30)

    thread = threading.Thread(target=lambda: in_thread(take))
    thread.start()
    assert taken.wait(30)
    try:
        assert DatabaseMetastore(pooled).store("_SK_s_p", record(TODAY)) is True
        assert DatabaseMetastore(pooled).load_latest("_SK_s_p") == record(TODAY)
    finally:
        done.set()
        thread.join()


def sessions(alias: str) -> int:
    """Count the connections to the database."""
    if VENDOR == "postgresql":
        return int(execute(alias, "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()")[0][0])
    return int(execute(alias, "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE()")[0][0])


@servers_only
def test_private_connections_are_closed_after_use(alias: str) -> None:
    metastore = DatabaseMetastore(alias)
    with transaction.atomic(using=alias):
        before = sessions(alias)
        for number in range(5):
            metastore.store("_SK_s_p", record(TODAY + number))
            metastore.store("_SK_s_p", record(TODAY + number))
            metastore.load_latest("_SK_s_p")
            metastore.load(KeyMeta("_SK_s_p", TODAY + number))
    wait_until(lambda: sessions(alias) <= before)


@servers_only
def test_private_connections_are_closed_after_a_failure(empty_alias: str) -> None:
    with transaction.atomic(using=empty_alias):
        before = sessions(empty_alias)
        for operation in operations(empty_alias) * 3:
            with pytest.raises(MetastoreError):
                operation()
        wait_until(lambda: sessions(empty_alias) <= before)


@postgresql_only
def test_a_lock_that_the_caller_holds_itself_is_an_error_and_not_a_hang(make_alias: Callable[..., str]) -> None:
    alias = make_alias("hasty", OPTIONS={"options": "-c lock_timeout=100"})

    with transaction.atomic(using=alias):
        execute(alias, "LOCK TABLE encryption_key")
        with pytest.raises(MetastoreError, match="lock timeout"):
            DatabaseMetastore(alias).store("_SK_s_p", record(TODAY))
        assert DatabaseMetastore(alias).load_latest("_SK_s_p") is None

    assert DatabaseMetastore(alias).load_latest("_SK_s_p") is None


@pytest.mark.slow
@postgresql_only
def test_postgresql_would_wait_for_ever_but_for_our_own_timeout(alias: str) -> None:
    with transaction.atomic(using=alias):
        assert execute(alias, "SHOW lock_timeout") == [("0",)]
        execute(alias, "LOCK TABLE encryption_key")
        with pytest.raises(MetastoreError, match="lock timeout"):
            DatabaseMetastore(alias).store("_SK_s_p", record(TODAY))


@postgresql_only
def test_the_lock_timeout_stays_with_the_private_connection(alias: str) -> None:
    with transaction.atomic(using=alias):
        DatabaseMetastore(alias).store("_SK_s_p", record(TODAY))
        assert execute(alias, "SHOW lock_timeout") == [("0",)]


@postgresql_only
@pytest.mark.parametrize("level", [r"read\ committed", r"repeatable\ read", "serializable"])
def test_a_race_for_one_key_is_lost_quietly_at_every_isolation_level(
    make_alias: Callable[..., str], level: str
) -> None:
    alias = make_alias("strict", OPTIONS={"options": f"-c default_transaction_isolation={level}"})
    with ThreadPoolExecutor(1) as pool, transaction.atomic(using="default"):
        DatabaseMetastore(alias).load(META)
        execute(
            "default",
            "INSERT INTO encryption_key (id, created, key_record) VALUES (%s, %s, %s)",
            ["_SK_s_p", "2026-11-24 00:00:00+00", encode_key(record(TODAY, 1))],
        )
        loser = pool.submit(in_thread, lambda: DatabaseMetastore(alias).store("_SK_s_p", record(TODAY, 2)))
        waiting = "SELECT COUNT(*) FROM pg_locks WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"
        wait_until(lambda: execute("default", waiting) != [(0,)])
    assert loser.result(30) is False

    assert DatabaseMetastore(alias).load_latest("_SK_s_p") == record(TODAY, 1)


@mysql_only
def test_a_row_that_the_caller_has_inserted_itself_is_an_error_and_not_a_hang(make_alias: Callable[..., str]) -> None:
    alias = make_alias("hasty", OPTIONS={"init_command": "SET SESSION innodb_lock_wait_timeout = 1"})
    with transaction.atomic(using=alias):
        execute(
            alias,
            "INSERT INTO encryption_key (id, created, key_record) VALUES (%s, %s, %s)",
            ["_SK_s_p", "2026-11-24 00:00:00", encode_key(record(TODAY))],
        )
        with pytest.raises(MetastoreError, match="Lock wait timeout"):
            DatabaseMetastore(alias).store("_SK_s_p", record(TODAY, 2))
        transaction.set_rollback(True, using=alias)


@pytest.mark.skipif(VENDOR != "sqlite", reason="one writer at a time")
def test_another_writer_in_a_sqlite_file_is_an_error(file_alias: str) -> None:
    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic(using=file_alias):
            execute(file_alias, "INSERT INTO testapp_note (title, other_body) VALUES ('', '')")
            locked.set()
            done.wait(30)

    thread = threading.Thread(target=lambda: in_thread(hold))
    thread.start()
    assert locked.wait(30)
    try:
        with pytest.raises(MetastoreError, match="database is locked"):
            DatabaseMetastore(file_alias).store("_SK_s_p", record(TODAY))
    finally:
        done.set()
        thread.join()

    assert DatabaseMetastore(file_alias).store("_SK_s_p", record(TODAY)) is True


@servers_only
def test_a_server_that_is_not_there_is_an_error(make_alias: Callable[..., str]) -> None:
    alias = make_alias("nowhere", PORT="1")

    for operation in operations(alias):
        with pytest.raises(MetastoreError, match="key table 'encryption_key' of database 'nowhere' failed"):
            operation()


@pytest.mark.skipif(VENDOR != "sqlite", reason="tests.faults.test_databases has the servers")
def test_a_read_only_file_costs_the_kms_one_key_however_often_one_is_to_be_stored(
    alias: str, settings: Settings
) -> None:
    kms = FakeKMS("us-west-2")
    settings.ASHERAH = as_asherah(DATABASE=alias, **kms.settings)
    execute(alias, "PRAGMA query_only = ON")
    for _ in range(4):
        with pytest.raises(MetastoreError, match="readonly"):
            engine.get_session().encrypt(b"x")
    assert kms.calls["us-west-2", "GenerateDataKey"] == 1
    execute(alias, "PRAGMA query_only = OFF")
    record = engine.get_session().encrypt(b"x")
    engine.reset()

    assert engine.get_session().decrypt(record) == b"x"
    assert kms.calls["us-west-2", "GenerateDataKey"] == 1
