"""The metastore runs on a table that an official SDK's DDL made: no ``row_id``, other column types."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import product
from typing import Any

import pytest
from django.db import transaction

from django_asherah.envelope.records import KeyMeta, encode_key
from django_asherah.exceptions import InvalidRecordError
from django_asherah.metastores.database import DatabaseMetastore
from django_asherah.metastores.key_table import KeyTable
from tests.databases import VENDOR, execute, record
from tests.unsound import COLUMNS as COLUMN_VALUES
from tests.unsound import plant

TODAY = 1_795_478_400  # 2026-11-24T00:00:00Z
_DDL = """
    CREATE TABLE encryption_key (
        id VARCHAR(255) {collation} NOT NULL,
        created {created} NOT NULL DEFAULT CURRENT_TIMESTAMP{digits},
        key_record {key_record} NOT NULL,
        PRIMARY KEY (id, created)
    )"""
COLLATION = {"mysql": "COLLATE utf8mb4_bin"}.get(VENDOR, "")


def ddl(created: str, key_record: str) -> str:
    """Return the statement that makes a key table as an SDK does, with columns of these types."""
    digits = "(6)" if created == "DATETIME(6)" else ""
    return _DDL.format(created=created, digits=digits, key_record=key_record, collation=COLLATION)


COLUMNS = {
    "sqlite": [("TIMESTAMP", "TEXT"), ("TIMESTAMP", "BLOB")],
    "postgresql": [
        ("timestamptz", "jsonb"),
        ("timestamptz", "json"),
        ("timestamptz", "text"),
        ("timestamptz(0)", "text"),
        ("timestamp", "text"),
        ("timestamp", "json"),
    ],
    "mysql": [
        ("TIMESTAMP", "TEXT"),
        ("TIMESTAMP", "JSON"),
        ("DATETIME", "LONGTEXT"),
        ("DATETIME(6)", "MEDIUMTEXT"),
        ("TIMESTAMP", "LONGTEXT CHARACTER SET utf16"),
        ("TIMESTAMP", "TEXT CHARACTER SET latin1"),
    ],
}[VENDOR]
ZONES = {
    "sqlite": [],
    "postgresql": ["SET TIME ZONE 'Asia/Kolkata'", "SET TIME ZONE 'America/New_York'"],
    "mysql": ["SET time_zone = '+05:30'"],
}[VENDOR]


@pytest.fixture(params=COLUMNS, ids="-".join)
def adopted(request: pytest.FixtureRequest, empty_alias: str) -> str:
    created, key_record = request.param
    execute(empty_alias, ddl(created, key_record))
    execute(empty_alias, "CREATE INDEX encryption_key_created ON encryption_key (created)")
    return empty_alias


@pytest.mark.parametrize("atomic", [False, True])
def test_the_contract_holds(adopted: str, atomic: bool) -> None:
    metastore = DatabaseMetastore(adopted)
    older, newer = record(TODAY, 1, "_SK_s_p"), record(TODAY + 60, 2, "_SK_s_p", revoked=True)

    with transaction.atomic(using=adopted) if atomic else transaction.mark_for_rollback_on_error(adopted):
        assert metastore.load_latest("_IK_a_s_p") is None
        assert metastore.store("_IK_a_s_p", newer) is True
        assert metastore.store("_IK_a_s_p", older) is True
        assert metastore.store("_IK_a_s_p", record(TODAY, 3)) is False
        assert metastore.store("_IK_A_s_p", older) is True
        assert metastore.load(KeyMeta("_IK_a_s_p", TODAY)) == older
        assert metastore.load_latest("_IK_a_s_p") == newer


def test_the_key_table_holds_the_records_that_the_engine_loads(adopted: str) -> None:
    metastore = DatabaseMetastore(adopted)
    metas = [KeyMeta("_IK_Zoë_s_p", TODAY), KeyMeta("_IK_a_s_p", TODAY + 60), KeyMeta("_IK_a_s_p", TODAY)]
    records = {meta: record(meta.created, number, "_SK_s_p") for number, meta in enumerate(metas)}
    for meta, each in records.items():
        metastore.store(meta.key_id, each)
    table = KeyTable(metastore)

    listed = [(row.key_id, row.record()) for row in table.scan()]

    assert sorted(listed, key=str) == sorted([(meta.key_id, each) for meta, each in records.items()], key=str)
    assert metastore.load_many(metas) == records
    for meta, each in records.items():
        row = table.read(meta)
        assert row is not None
        assert row.record() == metastore.load(meta) == each
    assert [row.record() for row in table.versions("_IK_a_s_p")] == [records[metas[1]], records[metas[2]]]
    assert {row.record() for row in table.children(KeyMeta("_SK_s_p", TODAY))} == {records[metas[0]], records[metas[2]]}
    assert table.count() == 3


def test_a_record_is_replaced_if_it_is_exactly_what_was_read(adopted: str) -> None:
    metastore = DatabaseMetastore(adopted)
    metastore.store("_SK_s_p", record(TODAY, 1))
    (row,) = metastore.versions("_SK_s_p")

    assert metastore.replace(row, record(TODAY, 2)) is True
    assert metastore.replace(row, record(TODAY, 3)) is False
    assert metastore.load(KeyMeta("_SK_s_p", TODAY)) == record(TODAY, 2)


@pytest.mark.parametrize("zone", ZONES)
def test_we_meet_the_rows_of_sdks_whose_session_is_in_another_zone(adopted: str, zone: str) -> None:
    """The SDKs send UTC wall-clock literals; with a TIMESTAMP column both sides see one session zone."""
    execute(adopted, zone)
    statement = "INSERT INTO encryption_key (id, created, key_record) VALUES (%s, %s, %s)"
    offset = "+00" if VENDOR == "postgresql" else ""
    execute(adopted, statement, ["_SK_s_p", f"2026-11-24 00:00:00{offset}", encode_key(record(TODAY, 1))])

    assert DatabaseMetastore(adopted).load(KeyMeta("_SK_s_p", TODAY)) == record(TODAY, 1)
    assert DatabaseMetastore(adopted).load_latest("_SK_s_p") == record(TODAY, 1)


def test_records_of_every_sdks_handwriting_are_read(adopted: str) -> None:
    """Members in any order, white space, ``Revoked`` false and null, members that nobody knows."""
    metastore = DatabaseMetastore(adopted)
    plain = json.loads(encode_key(record(TODAY, 1, "_SK_s_p")))
    extras: list[dict[str, Any]] = [{"Revoked": False}, {"Revoked": None}, {"ID": "_IK_a_s_p", "Version": {"a": [1]}}]
    for number, extra in enumerate(extras):
        text = json.dumps(dict(reversed({**extra, **plain}.items())), indent=2)
        execute(
            adopted,
            "INSERT INTO encryption_key (id, created, key_record) VALUES (%s, %s, %s)",
            [f"_IK_{number}_s_p", "2026-11-24 00:00:00", text],
        )
        assert metastore.load_latest(f"_IK_{number}_s_p") == record(TODAY, 1, "_SK_s_p")


def test_the_extra_row_of_the_rust_core_disturbs_nothing(adopted: str) -> None:
    guard = "__asherah_internal_config_drift_guard_v1__:AAAA"
    execute(
        adopted,
        "INSERT INTO encryption_key (id, created, key_record) VALUES (%s, %s, %s)",
        [guard, "2000-01-01 00:00:00", '{"Created":946684800,"Key":"e30="}'],
    )
    metastore = DatabaseMetastore(adopted)

    assert metastore.store("_SK_s_p", record(TODAY)) is True
    assert metastore.load_latest("_SK_s_p") == record(TODAY)


def test_rows_that_are_no_keys_hide_none(adopted: str, request: pytest.FixtureRequest) -> None:
    """MariaDB makes zeros of what its TIMESTAMP cannot hold. JSON columns take nothing but JSON."""
    metastore, stored = DatabaseMetastore(adopted), record(TODAY, 1, "_SK_s_p")
    metastore.store("_IK_a_s_p", stored)
    texts = [encode_key(record(TODAY - 77, 2, "_SK_s_p")), "{}"]
    if "json" not in request.node.callspec.id.lower():
        texts += ["", "not JSON", '{"Created":', "\u6771" * 9 if "latin1" not in request.node.callspec.id else "\xe4"]

    for text, column in product(texts, COLUMN_VALUES):
        plant(adopted, "_IK_a_s_p", column, text)
        rows = list(metastore.scan())
        assert len(rows) == len(list(metastore.versions("_IK_a_s_p"))) == metastore.count() == 2
        for row in rows:
            with suppress(InvalidRecordError):
                assert row.record() == stored
        assert metastore.load(KeyMeta("_IK_a_s_p", TODAY)) == stored
        assert metastore.load_many([KeyMeta("_IK_a_s_p", TODAY)]) == {KeyMeta("_IK_a_s_p", TODAY): stored}
        with suppress(InvalidRecordError):
            assert metastore.load_latest("_IK_a_s_p") == stored
        execute(adopted, "DELETE FROM encryption_key")
        metastore.store("_IK_a_s_p", stored)
