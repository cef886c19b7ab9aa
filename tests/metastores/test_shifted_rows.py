"""An SDK's own table, whose ``created`` depends on the time zone of the session that writes and reads it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoDbBlocker, Settings

from django_asherah import engine
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, encode_key
from django_asherah.envelope.session import SessionFactory
from django_asherah.exceptions import InvalidRecordError, MetastoreError
from django_asherah.metastores.database import DatabaseMetastore
from django_asherah.metastores.database_rows import ROWS_PER_QUERY
from django_asherah.metastores.key_table import KeyRow
from django_asherah.metastores.memory import MemoryMetastore
from django_asherah.metastores.sql import created_value, keys_in_utc
from django_asherah.models import EncryptionKey
from tests.databases import VENDOR, another_alias, as_asherah, close_connections, execute, in_thread, record
from tests.envelope.fakes import CountingKMS, FakeClock

pytestmark = pytest.mark.skipif(VENDOR == "sqlite", reason="SQLite's sessions have no time zones")

NOON = 1_795_521_600  # 2026-11-24T12:00:00Z
DAY = 86_400
ID = "_IK_a_s_p"
DDL = f"""
    CREATE TABLE encryption_key (
        id VARCHAR(255) {"COLLATE utf8mb4_bin" if VENDOR == "mysql" else ""} NOT NULL,
        created TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
        key_record TEXT NOT NULL,
        PRIMARY KEY (id, created)
    )"""
INSERT = "INSERT INTO encryption_key (id, created, key_record) VALUES (%s, %s, %s)"
ZONES = {"utc": "+00:00", "kolkata": "+05:30", "new_york": "-05:00"}
mysql_only = pytest.mark.skipif(VENDOR != "mysql", reason="PostgreSQL's TIMESTAMP takes what it is given")


@pytest.fixture(scope="module")
def sessions_of_module(django_db_blocker: DjangoDbBlocker) -> Iterator[dict[str, str]]:
    """Aliases of a database with the table that Asherah's published DDL makes, in sessions of three time zones."""
    server = connections["default"]
    name = f"{server.settings_dict['NAME']}_zones_{os.environ.get('PYTEST_XDIST_WORKER', '')}"
    with django_db_blocker.unblock(), ExitStack() as stack:
        with server._nodb_cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {name}")
            cursor.execute(f"CREATE DATABASE {name}")
        for alias, zone in ZONES.items():
            options: dict[str, Any] = {"init_command": f"SET time_zone = '{zone}'"}
            if VENDOR == "postgresql":
                options = {"options": f"-c TimeZone=<{zone}>{-int(zone[:3]):+d}{zone[3:]}"}
            stack.enter_context(another_alias(alias, NAME=name, OPTIONS=options))
        execute("utc", DDL)
        yield {alias: alias for alias in ZONES}
        stack.close()
        with server._nodb_cursor() as cursor:
            cursor.execute(f"DROP DATABASE {name}")


@pytest.fixture
def sessions(sessions_of_module: dict[str, str], django_db_blocker: DjangoDbBlocker) -> Iterator[dict[str, str]]:
    """The aliases, of a table without rows."""
    with django_db_blocker.unblock():
        execute("utc", "DELETE FROM encryption_key")
        yield sessions_of_module


@pytest.fixture
def table(sessions: dict[str, str]) -> str:
    """The alias in UTC."""
    return sessions["utc"]


def put(alias: str, created: int, hours: float, fill: int = 0, key_id: str = ID, text: str | None = None) -> Any:
    """Insert a row whose column is so many hours later than its record; return the record."""
    theirs = record(created, fill, "_SK_s_p")
    shown = {
        "mysql": "TIMESTAMPADD(SECOND, %s, '1970-01-01')",
        "postgresql": "to_timestamp(%s) AT TIME ZONE 'UTC'",
    }[VENDOR]
    statement = INSERT.replace("(%s, %s, %s)", f"(%s, {shown}, %s)")
    prefix = "SET STATEMENT time_zone = '+00:00' FOR "
    if VENDOR == "mysql" and connections[alias].mysql_is_mariadb:  # type: ignore[attr-defined]
        statement = prefix + statement
    execute(alias, statement, [key_id, created + round(hours * 3600), text or encode_key(theirs)])
    return theirs


def sound(rows: Iterable[KeyRow]) -> list[EnvelopeKeyRecord]:
    """Return the records of those rows that are sound keys."""
    found = []
    for row in rows:
        with suppress(InvalidRecordError):
            found.append(row.record())
    return found


def clock_at(now: float) -> FakeClock:
    clock = FakeClock()
    clock.now = now
    return clock


def columns(alias: str) -> list[tuple[Any, ...]]:
    """Return every row's id and its column, as the database holds it."""
    stored = "UNIX_TIMESTAMP(created)" if VENDOR == "mysql" else "extract(epoch FROM created)::bigint"
    return execute(alias, f"SELECT id, {stored} FROM encryption_key ORDER BY 1, 2")


@pytest.mark.parametrize("atomic", [False, True])
def test_every_session_reads_what_any_wrote(sessions: dict[str, str], atomic: bool) -> None:
    for number, writer in enumerate(sessions.values()):
        written = {KeyMeta(ID, NOON + 60 * n): record(NOON + 60 * n, n) for n in range(number * 40, number * 40 + 40)}
        assert DatabaseMetastore(writer).store_many(written) == set(written)
        for reader in sessions.values():
            metastore = DatabaseMetastore(reader)
            with transaction.atomic(using=reader) if atomic else transaction.mark_for_rollback_on_error(reader):
                assert metastore.load_many(list(written)) == written
                assert metastore.load(KeyMeta(ID, NOON)) == record(NOON)
                assert metastore.load_latest(ID) == list(written.values())[-1]
                assert metastore.load_latest_many([ID]) == {ID: list(written.values())[-1]}
                assert metastore.store(ID, record(NOON, 99)) is False
    assert columns(sessions["utc"]) == [(ID, NOON + 60 * n) for n in range(120)]


def test_writers_of_three_zones_at_once_have_one_key(sessions: dict[str, str]) -> None:
    clock, kms = clock_at(NOON), CountingKMS(Counter())

    def write(alias: str) -> list[str]:
        try:
            factory = SessionFactory("s", "p", DatabaseMetastore(alias), kms, clock=clock, timer=clock)
            return [factory.get_session(f"t{n}").encrypt(b"value") for n in range(20)]
        finally:
            close_connections()

    with ThreadPoolExecutor(3) as pool:
        written = list(pool.map(write, sessions.values()))

    assert len(columns(sessions["utc"])) == 21
    for alias in sessions.values():
        factory = SessionFactory("s", "p", DatabaseMetastore(alias), kms, clock=clock, timer=clock)
        for texts in written:
            assert [factory.get_session(f"t{n}").decrypt(text) for n, text in enumerate(texts)] == [b"value"] * 20


def test_a_sessions_zone_is_left_as_it_is(sessions: dict[str, str]) -> None:
    alias = sessions["kolkata"]
    statement = "SELECT @@time_zone" if VENDOR == "mysql" else "SHOW TimeZone"
    before = execute(alias, statement)

    metastore = DatabaseMetastore(alias)
    metastore.store(ID, record(NOON))
    metastore.load_latest(ID)

    assert execute(alias, statement) == before


def test_a_key_that_is_there_costs_one_query(sessions: dict[str, str]) -> None:
    metastore = DatabaseMetastore(sessions["kolkata"])
    metastore.store(ID, record(NOON))
    for look in (
        lambda: metastore.load(KeyMeta(ID, NOON)),
        lambda: metastore.load_many([KeyMeta(ID, NOON)]),
        lambda: metastore.load_latest(ID),
        lambda: metastore.load_latest_many([ID]),
    ):
        with CaptureQueriesContext(connections[sessions["kolkata"]]) as queries:
            look()
        assert len(queries) == 1


@pytest.mark.parametrize("hours", [-2, 5.75, 14])
class TestRowsThatAnotherSessionPut:
    def test_are_found_by_name(self, table: str, hours: float) -> None:
        stored = {KeyMeta(ID, NOON - n * DAY): put(table, NOON - n * DAY, hours, n) for n in range(4)}
        metastore = DatabaseMetastore(table)

        assert metastore.load_many([*stored, KeyMeta(ID, NOON + 60)]) == stored
        for meta, theirs in stored.items():
            assert metastore.load(meta) == theirs
            row = metastore.read(meta)
            assert row is not None
            assert row.record() == theirs
        assert metastore.load(KeyMeta(ID, NOON + 60)) is None

    def test_are_not_stored_a_second_time(self, table: str, hours: float) -> None:
        put(table, NOON, hours, 1)
        metastore = DatabaseMetastore(table)

        assert metastore.store(ID, record(NOON, 2)) is False
        assert metastore.store_many({KeyMeta(ID, NOON): record(NOON, 2), KeyMeta("_IK_b_s_p", NOON): record(NOON)}) == {
            KeyMeta("_IK_b_s_p", NOON)
        }

        assert columns(table) == [(ID, NOON + round(hours * 3600)), ("_IK_b_s_p", NOON)]

    def test_are_replaced_where_they_stand(self, table: str, hours: float) -> None:
        put(table, NOON, hours, 1)
        metastore = DatabaseMetastore(table)
        (row,) = metastore.versions(ID)

        assert metastore.replace(row, record(NOON, 2, revoked=True)) is True
        assert metastore.replace(row, record(NOON, 3)) is False

        assert metastore.load(KeyMeta(ID, NOON)) == record(NOON, 2, revoked=True)
        assert columns(table) == [(ID, NOON + round(hours * 3600))]

    def test_are_the_newest_if_their_records_are(self, table: str, hours: float) -> None:
        older, newest = put(table, NOON, 0, 1), put(table, NOON + 60, hours, 2)
        put(table, NOON, 0, 3, "_IK_b_s_p")
        metastore = DatabaseMetastore(table)

        assert metastore.load_latest(ID) == newest
        assert metastore.load_latest_many([ID, "_IK_b_s_p", "_IK_c_s_p"]) == {
            ID: newest,
            "_IK_b_s_p": record(NOON, 3, "_SK_s_p"),
        }
        assert [row.record() for row in metastore.versions(ID)] == [newest, older]
        assert [row.record() for row in metastore.scan() if row.key_id == ID] == [newest, older]

    def test_are_not_if_not(self, table: str, hours: float) -> None:
        older, newest = put(table, NOON, hours, 1), put(table, NOON + 60, 0, 2)
        metastore = DatabaseMetastore(table)

        assert metastore.load_latest(ID) == newest
        assert metastore.load_latest_many([ID]) == {ID: newest}
        assert [row.record() for row in metastore.versions(ID)] == [newest, older]

    def test_leave_their_place_to_no_other_key_but_stop_none(self, table: str, hours: float) -> None:
        """Another key's row stands where the new key would: the new one is a second younger."""
        clock, kms = clock_at(NOON), CountingKMS(Counter())
        factory = SessionFactory("s", "p", DatabaseMetastore(table), kms, clock=clock, timer=clock)
        first = factory.get_session("a").encrypt(b"first")
        shift = "INTERVAL %s SECOND" if VENDOR == "mysql" else "%s * INTERVAL '1 second'"
        execute(table, f"UPDATE encryption_key SET created = created + {shift}", [round(hours * 3600)])
        clock.now = NOON + hours * 3600 if hours > 0 else NOON
        factory = SessionFactory("s", "p", DatabaseMetastore(table), kms, clock=clock, timer=clock)

        factory.intermediate_keys.rotate("_IK_a_s_p")
        second = factory.get_session("a").encrypt(b"second")

        factory = SessionFactory("s", "p", DatabaseMetastore(table), kms, clock=clock, timer=clock)
        assert factory.get_session("a").decrypt(first) == b"first"
        assert factory.get_session("a").decrypt(second) == b"second"


def test_the_newest_of_many_partitions_cost_three_queries_though_another_session_put_all(table: str) -> None:
    theirs = {f"_IK_{number}_s_p": put(table, NOON, 5.5, number, f"_IK_{number}_s_p") for number in range(40)}
    with CaptureQueriesContext(connections[table]) as queries:
        assert DatabaseMetastore(table).load_latest_many(list(theirs)) == theirs
    assert len(queries) == 3


@pytest.mark.parametrize("shifts", [(0, -2), (0, 5.5), (-2, 5.75), (-5, -2), (1, 14)])
class TestTwoKeysOfOneName:
    """Sessions of two time zones have each made the same minute's key, in different places."""

    def test_the_newest_is_the_one_that_its_name_finds(self, table: str, shifts: tuple[float, float]) -> None:
        made = [put(table, NOON, hours, number) for number, hours in enumerate(shifts)]
        metastore, meta = DatabaseMetastore(table), KeyMeta(ID, NOON)

        found = metastore.load(meta)

        assert found in made
        assert found == made[0] or 0 not in shifts
        assert metastore.load_many([meta]) == {meta: found}
        assert metastore.load_latest(ID) == found
        assert metastore.load_latest_many([ID]) == {ID: found}
        row = metastore.read(meta)
        assert row is not None
        assert row.record() == found
        assert sound(metastore.versions(ID)) == sound(metastore.scan()) == [found]

    def test_what_is_written_is_read_by_another_process(self, table: str, shifts: tuple[float, float]) -> None:
        clock, kms = clock_at(NOON), CountingKMS(Counter())
        maker = SessionFactory("s", "p", MemoryMetastore(), kms, clock=clock, timer=clock)
        system_key = maker.system_keys.current("_SK_s_p")
        for hours in shifts:
            sealed = system_key.cipher.seal(bytearray(os.urandom(32)))
            made = EnvelopeKeyRecord(created=NOON, key=sealed, parent_key_meta=system_key.meta)
            put(table, NOON, hours, text=encode_key(made))
        DatabaseMetastore(table).store("_SK_s_p", system_key.record)

        writer = SessionFactory("s", "p", DatabaseMetastore(table), kms, clock=clock, timer=clock)
        text = writer.get_session("a").encrypt(b"value")

        another = SessionFactory("s", "p", DatabaseMetastore(table), kms, clock=clock, timer=clock)
        assert another.get_session("a").decrypt(text) == b"value"


class TestRowsThatNoSessionPut:
    """Their records disagree with their columns by something that is no time zone's offset: they count as before."""

    @pytest.mark.parametrize("hours", [0.02, -7 * 24, 26.25])
    def test_are_not_found_by_their_records_names(self, table: str, hours: float) -> None:
        put(table, NOON, hours, 1)
        metastore = DatabaseMetastore(table)

        assert metastore.load(KeyMeta(ID, NOON)) is None
        assert metastore.load_many([KeyMeta(ID, NOON)]) == {}
        assert metastore.store(ID, record(NOON, 2)) is True

    def test_are_no_keys_to_write_under_if_they_are_the_last(self, table: str) -> None:
        """Nobody would find the key again by the name that the values give it."""
        put(table, NOON, 0)
        put(table, NOON - 90 * DAY, 90 * 24 + 1, 9)
        metastore = DatabaseMetastore(table)

        for look in (lambda: metastore.load_latest(ID), lambda: metastore.load_latest_many([ID])):
            said = rf"key {ID} \(latest\) in database 'utc': it is stored as .* \(2026-08-26 12:00:00 UTC\)"
            with pytest.raises(InvalidRecordError, match=said):
                look()

    def test_are_none_even_if_their_names_find_an_older_key(self, table: str) -> None:
        """It would take the place of the newest for good: each process would make a key of its own."""
        newest, older = put(table, NOON, 0), put(table, NOON - 90 * DAY, 0, 9)
        put(table, NOON - 90 * DAY, 90 * 24 + 1, 9)

        with pytest.raises(InvalidRecordError, match="2026-08-26 12:00:00"):
            DatabaseMetastore(table).load_latest(ID)
        assert sound(DatabaseMetastore(table).versions(ID)) == [newest, older]

    def test_hide_no_key_whose_place_they_take(self, table: str) -> None:
        good = put(table, NOON, -2, 1)
        put(table, NOON - 60, 60 / 3600, 9)
        metastore = DatabaseMetastore(table)

        assert metastore.load(KeyMeta(ID, NOON)) == good
        assert metastore.load_many([KeyMeta(ID, NOON)]) == {KeyMeta(ID, NOON): good}
        assert sound(metastore.versions(ID)) == [good]
        assert metastore.store(ID, record(NOON, 2)) is False


@mysql_only
def test_a_column_that_every_update_sets_keeps_its_time(table: str) -> None:
    """MySQL makes the first ``TIMESTAMP NOT NULL`` one of these, unless the DDL or a setting says otherwise."""
    execute(table, "DROP TABLE encryption_key")
    execute(table, DDL.replace("CURRENT_TIMESTAMP", "CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP"))
    put(table, NOON, 0, 1)
    metastore = DatabaseMetastore(table)
    (row,) = metastore.versions(ID)

    assert metastore.replace(row, record(NOON, 2, revoked=True)) is True

    assert columns(table) == [(ID, NOON)]


@mysql_only
@pytest.mark.parametrize("mode", ["", "NO_BACKSLASH_ESCAPES", "ANSI"])
def test_a_record_that_the_column_cant_hold_is_an_error_in_every_mode(table: str, mode: str) -> None:
    connections[table].close()
    options = connections[table].settings_dict["OPTIONS"]
    before, options["sql_mode"] = options.get("sql_mode"), mode
    try:
        metastore = DatabaseMetastore(table)
        assert metastore.store(ID, record(NOON)) is True
        (row,) = metastore.versions(ID)
        execute(table, f"ALTER TABLE encryption_key MODIFY key_record VARCHAR({len(row.text)}) NOT NULL")

        with pytest.raises(MetastoreError, match="Data too long for column 'key_record'"):
            metastore.replace(row, record(NOON, revoked=True))
        with pytest.raises(MetastoreError, match="Data too long for column 'key_record'"):
            metastore.store("_IK_b_s_p", record(NOON, revoked=True))

        assert [each.record() for each in metastore.scan()] == [record(NOON)]
    finally:
        options["sql_mode"] = before
        if before is None:
            del options["sql_mode"]
        connections[table].close()
        execute(table, "ALTER TABLE encryption_key MODIFY key_record TEXT NOT NULL")


def test_a_scan_goes_on_where_a_page_ended(sessions: dict[str, str]) -> None:
    stored = [record(NOON - 600 * n, n % 256) for n in range(ROWS_PER_QUERY + 100)]
    DatabaseMetastore(sessions["utc"]).store_many({KeyMeta(ID, each.created): each for each in stored})

    for alias in sessions.values():
        assert [row.record() for row in DatabaseMetastore(alias).scan()] == stored


@pytest.mark.skipif(VENDOR != "postgresql", reason="a setting of PostgreSQL")
@pytest.mark.parametrize("type", ["timestamp", "timestamptz"])
@pytest.mark.parametrize("style", ["ISO,MDY", "SQL,DMY", "German,DMY"])
def test_a_scan_needs_no_style_of_dates(table: str, style: str, type: str) -> None:
    """Psycopg reads a ``timestamptz`` in ISO alone, and none of a year that the session's zone makes 10000."""
    execute(table, "DROP TABLE encryption_key")
    execute(table, DDL.replace("TIMESTAMP NOT NULL", f"{type} NOT NULL"))
    stored = [record(253_402_300_799 - 600 * n, n % 256) for n in range(ROWS_PER_QUERY + 100)]
    DatabaseMetastore(table).store_many({KeyMeta(ID, each.created): each for each in stored})
    name, options = connections[table].settings_dict["NAME"], f"-c DateStyle={style} -c TimeZone=Pacific/Kiritimati"

    with another_alias("styled", NAME=name, OPTIONS={"options": options}, TIME_ZONE="Pacific/Kiritimati"):
        assert [row.record() for row in DatabaseMetastore("styled").scan()] == stored
    execute(table, "DROP TABLE encryption_key")
    execute(table, DDL)


def test_values_of_a_session_are_read_by_a_thread_of_another(sessions: dict[str, str], settings: Settings) -> None:
    settings.ASHERAH = as_asherah(DATABASE=sessions["new_york"])
    text = engine.get_session("p").encrypt(b"value")
    settings.ASHERAH = as_asherah(DATABASE=sessions["kolkata"])

    assert in_thread(lambda: engine.get_session("p").decrypt(text)) == b"value"


@mysql_only
def test_the_orm_reads_keys_in_utc_where_the_admin_asks_it(sessions: dict[str, str]) -> None:
    execute(sessions["utc"], "ALTER TABLE encryption_key ADD COLUMN row_id bigint NOT NULL AUTO_INCREMENT UNIQUE")
    try:
        for alias in sessions.values():
            DatabaseMetastore(alias).store(f"_IK_{alias}_s_p", record(NOON))
        for alias in sessions.values():
            rows = EncryptionKey.objects.using(alias).filter(created=created_value(connections[alias], NOON))
            with keys_in_utc(connections[alias]):
                assert {row.created for row in rows.defer("key_record")} == {datetime.fromtimestamp(NOON, UTC)}
                assert rows.count() == 3
    finally:
        execute(sessions["utc"], "ALTER TABLE encryption_key DROP COLUMN row_id")


@mysql_only
def test_a_query_of_the_applications_own_reads_the_column_in_the_sessions_zone(sessions: dict[str, str]) -> None:
    DatabaseMetastore(sessions["utc"]).store(ID, record(NOON))
    shown = {alias: EncryptionKey.objects.using(alias).values_list("created", flat=True).get() for alias in ZONES}
    assert {alias: f"{created:%H:%M}" for alias, created in shown.items()} == {
        "utc": "12:00",
        "kolkata": "17:30",
        "new_york": "07:00",
    }
