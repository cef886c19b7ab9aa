"""The key table serves the official SDKs unchanged: their statements are sent here as they send them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections

from django_asherah.envelope.records import KeyMeta, decode_key, encode_key
from django_asherah.metastores.database import DatabaseMetastore
from django_asherah.models import EncryptionKey
from tests.databases import VENDOR, execute, record

TODAY = 1_795_478_400  # 2026-11-24T00:00:00Z
WALL_CLOCK = "2026-11-24 00:00:00"
INDIA = timezone(timedelta(hours=5, minutes=30))

# asherah.md §5, with the driver's placeholders.
LOAD = "SELECT key_record FROM encryption_key WHERE id = %s AND created = %s"
LOAD_LATEST = "SELECT key_record FROM encryption_key WHERE id = %s ORDER BY created DESC LIMIT 1"
INSERT = "INSERT INTO encryption_key (id, created, key_record) VALUES (%s, %s, %s)"
INSERT_OR_NOT = {
    "postgresql": [f"{INSERT} ON CONFLICT DO NOTHING"],
    "sqlite": [f"{INSERT} ON CONFLICT DO NOTHING", INSERT.replace("INSERT", "INSERT OR IGNORE")],
    "mysql": [INSERT.replace("INSERT", "INSERT IGNORE")],
}[VENDOR]

postgresql_only = pytest.mark.skipif(VENDOR != "postgresql", reason="about PostgreSQL's types")


def parsed(column: Any) -> Any:
    """Return a JSON column as the drivers may give it: parsed, or as text."""
    return json.loads(column) if isinstance(column, str) else column


def test_what_an_sdk_inserts_we_load(alias: str) -> None:
    theirs = record(TODAY, 1, "_SK_s_p")
    execute(alias, INSERT, ["_IK_a_s_p", WALL_CLOCK, encode_key(theirs)])

    assert DatabaseMetastore(alias).load(KeyMeta("_IK_a_s_p", TODAY)) == theirs
    assert DatabaseMetastore(alias).load_latest("_IK_a_s_p") == theirs


def test_what_we_store_an_sdk_loads(alias: str) -> None:
    ours = record(TODAY, 1, "_SK_s_p", revoked=True)
    DatabaseMetastore(alias).store("_IK_a_s_p", ours)
    DatabaseMetastore(alias).store("_IK_a_s_p", record(TODAY - 60, 2))

    expected = json.loads(encode_key(ours))
    assert [parsed(row[0]) for row in execute(alias, LOAD, ["_IK_a_s_p", WALL_CLOCK])] == [expected]
    assert [parsed(row[0]) for row in execute(alias, LOAD_LATEST, ["_IK_a_s_p"])] == [expected]


@pytest.mark.parametrize("statement", INSERT_OR_NOT)
def test_an_sdk_that_inserts_what_stands_changes_nothing(alias: str, statement: str) -> None:
    ours = record(TODAY, 1)
    DatabaseMetastore(alias).store("_SK_s_p", ours)

    with connections[alias].cursor() as cursor:
        cursor.execute(statement, ["_SK_s_p", WALL_CLOCK, encode_key(record(TODAY, 2))])
        assert cursor.rowcount == 0
        cursor.execute(statement, ["_SK_s_p", "2026-11-24 00:01:00", encode_key(record(TODAY + 60, 3))])
        assert cursor.rowcount == 1

    assert DatabaseMetastore(alias).load(KeyMeta("_SK_s_p", TODAY)) == ours
    assert DatabaseMetastore(alias).load_latest("_SK_s_p") == record(TODAY + 60, 3)


@pytest.mark.parametrize("statement", INSERT_OR_NOT)
def test_we_change_nothing_where_an_sdk_was_first(alias: str, statement: str) -> None:
    theirs = record(TODAY, 1)
    execute(alias, statement, ["_SK_s_p", WALL_CLOCK, encode_key(theirs)])

    assert DatabaseMetastore(alias).store("_SK_s_p", record(TODAY, 2)) is False
    assert DatabaseMetastore(alias).load_latest("_SK_s_p") == theirs


@postgresql_only
@pytest.mark.parametrize(
    ("created", "value"),
    [
        ("to_timestamp(%s)", TODAY),  # the Rust core
        ("%s", "2026-11-24 05:30:00+05:30"),  # the Go core, through lib/pq
        ("%s", datetime(2026, 11, 24, tzinfo=UTC)),
        ("%s", datetime(2026, 11, 24, 5, 30, tzinfo=INDIA)),
    ],
)
def test_every_way_in_which_an_sdk_says_created_meets_the_same_row(alias: str, created: str, value: Any) -> None:
    ours = record(TODAY, 1)
    DatabaseMetastore(alias).store("_SK_s_p", ours)

    rows = execute(
        alias, f"SELECT key_record::text FROM encryption_key WHERE id = %s AND created = {created}", ["_SK_s_p", value]
    )

    assert [decode_key(row[0]) for row in rows] == [ours]


def test_the_columns_are_of_the_types_that_every_sdk_can_use(alias: str) -> None:
    expected = {
        "postgresql": {
            "row_id": "bigint",
            "id": "character varying(255)",
            "created": "timestamp with time zone",
            "key_record": "jsonb",
        },
        "mysql": {"row_id": "bigint", "id": "varchar(255)", "created": "datetime(6)", "key_record": "json"}
        | ({"row_id": "bigint(20)", "key_record": "longtext"} if is_mariadb(alias) else {}),
        "sqlite": {"row_id": "INTEGER", "id": "varchar(255)", "created": "datetime", "key_record": "TEXT"},
    }[connections[alias].vendor]
    statement = {
        "postgresql": "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = 'encryption_key'::regclass AND attnum > 0",
        "mysql": "SELECT column_name, column_type FROM information_schema.columns "
        "WHERE table_schema = DATABASE() AND table_name = 'encryption_key'",
        "sqlite": "SELECT name, type FROM pragma_table_info('encryption_key')",
    }[connections[alias].vendor]

    assert dict(execute(alias, statement)) == expected


def test_an_index_serves_the_latest_of_an_id_and_a_single_key(alias: str) -> None:
    EncryptionKey.objects.using(alias).bulk_create(
        EncryptionKey(
            key_id=f"_IK_{number % 500}_s_p",
            created=datetime.fromtimestamp(TODAY + number // 20 * 60, UTC),
            key_record=json.loads(encode_key(record(TODAY + number // 20 * 60))),
        )
        for number in range(2_000)
    )
    if connections[alias].vendor != "sqlite":
        execute(alias, "ANALYZE TABLE encryption_key" if VENDOR == "mysql" else "ANALYZE encryption_key")

    latest = explained(alias, LOAD_LATEST, ["_IK_7_s_p"])
    exact = explained(alias, LOAD, ["_IK_7_s_p", WALL_CLOCK])

    index = {"sqlite": "sqlite_autoindex_encryption_key_1"}.get(connections[alias].vendor, "encryption_key_id_created")
    for plan in (latest, exact):
        assert index in plan
    # Neither a scan of the table nor a sort.
    for unwanted in ("Seq Scan", "Sort", "filesort", "SCAN", "TEMP B-TREE"):
        assert unwanted not in latest


def is_mariadb(alias: str) -> bool:
    return bool(getattr(connections[alias], "mysql_is_mariadb", False))


def explained(alias: str, statement: str, parameters: list[str]) -> str:
    prefix = "EXPLAIN QUERY PLAN" if connections[alias].vendor == "sqlite" else "EXPLAIN"
    if VENDOR == "mysql" and not is_mariadb(alias):
        prefix = "EXPLAIN FORMAT = TRADITIONAL"
    return str(execute(alias, f"{prefix} {statement}", parameters))


@pytest.mark.django_db(databases=["default", "other"])
def test_the_table_needs_no_further_migration() -> None:
    call_command("makemigrations", "django_asherah", check=True, dry_run=True, verbosity=0)


def test_a_key_names_itself_by_id_and_time(alias: str) -> None:
    DatabaseMetastore(alias).store("_SK_s_p", record(TODAY))

    assert str(EncryptionKey.objects.using(alias).get()) == "_SK_s_p created 2026-11-24 00:00:00"
