"""Rows whose column is not what their record says, or that are no keys, beside sound keys of the same id."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from django_asherah.envelope.partition import kind_of
from django_asherah.envelope.records import MAX_CREATED, EnvelopeKeyRecord, KeyMeta, encode_key
from django_asherah.exceptions import InvalidRecordError
from django_asherah.metastores.database import DatabaseMetastore
from django_asherah.metastores.database_rows import ROWS_PER_QUERY
from django_asherah.metastores.key_table import KeyRow
from django_asherah.metastores.memory import MemoryMetastore
from tests.databases import VENDOR, execute, record
from tests.unsound import COLUMNS, COPIED, RECORDS, plant

pytestmark = pytest.mark.django_db(transaction=True)

TODAY = 1_795_478_400  # 2026-11-24T00:00:00Z
DAY = 86_400
ID = "_IK_a_s_p"
COPIED_AT = 1_798_761_600  # 2027-01-01T00:00:00Z
Keys = dict[KeyMeta, EnvelopeKeyRecord]


@pytest.fixture
def metastore() -> DatabaseMetastore:
    return DatabaseMetastore("default")


@pytest.fixture
def stored(metastore: DatabaseMetastore) -> Keys:
    """Two sound keys of the id, and one of another."""
    keys = {KeyMeta(ID, TODAY - n * DAY): record(TODAY - n * DAY, n, "_SK_s_p") for n in range(2)}
    keys[KeyMeta("_IK_b_s_p", TODAY)] = record(TODAY, 9, "_SK_s_p")
    metastore.store_many(keys)
    return keys


def sound(rows: Iterable[KeyRow]) -> list[EnvelopeKeyRecord]:
    found = []
    for row in rows:
        with suppress(InvalidRecordError):
            found.append(row.record())
    return found


def check_that_no_good_key_is_hidden(metastore: DatabaseMetastore, stored: Keys) -> None:
    """Check all that the engine and the lifecycle ask for; one row is unsound."""
    first, second, other = stored.values()
    assert metastore.load_many(list(stored)) == stored
    assert [metastore.load(meta) for meta in stored] == list(stored.values())
    assert sound(metastore.versions(ID)) == [first, second]
    assert len(list(metastore.versions(ID))) == 3
    assert sound(metastore.scan()) == [first, second, other]
    assert len(list(metastore.scan())) == metastore.count() == 4
    assert {row.key_id for row in metastore.children(KeyMeta("_SK_s_p", TODAY))} == {ID, "_IK_b_s_p"}
    assert [row.record() for row in map(metastore.read, stored) if row] == list(stored.values())
    assert metastore.load_latest("_IK_b_s_p") == other


def latest(metastore: DatabaseMetastore) -> EnvelopeKeyRecord | str:
    """Return the newest key, or what is wrong with the newest row."""
    try:
        found = metastore.load_latest(ID)
    except InvalidRecordError as exc:
        said = str(exc)
    else:
        assert found is not None
        assert metastore.load_latest_many([ID]) == {ID: found}
        return found
    with pytest.raises(InvalidRecordError) as many:
        metastore.load_latest_many([ID, "_IK_b_s_p"])
    assert str(many.value) == said
    return said


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_that_its_record_cant_explain_hides_no_good_key(
    metastore: DatabaseMetastore, stored: Keys, column: str
) -> None:
    plant("default", ID, column, record(COPIED_AT - 77, 5, "_SK_s_p"))

    check_that_no_good_key_is_hidden(metastore, stored)
    assert metastore.load(KeyMeta(ID, COPIED_AT - 77)) is None
    assert metastore.load_many([KeyMeta(ID, COPIED_AT), KeyMeta(ID, COPIED_AT - 77)]) == {}
    found = latest(metastore)
    assert found == stored[KeyMeta(ID, TODAY)] or f"key {ID} (latest) in database 'default': " in str(found)


@pytest.mark.parametrize("column", COLUMNS)
def test_one_that_is_alone_is_no_key(metastore: DatabaseMetastore, column: str) -> None:
    plant("default", ID, column, record(COPIED_AT - 77, 5, "_SK_s_p"))

    with suppress(InvalidRecordError):
        assert metastore.load_latest(ID) is None
    assert sound(metastore.versions(ID)) == sound(metastore.scan()) == []
    assert metastore.store(ID, record(TODAY, 1)) is True
    assert metastore.load(KeyMeta(ID, TODAY)) == record(TODAY, 1)


def test_a_copied_row_says_what_is_wrong(metastore: DatabaseMetastore, stored: Keys) -> None:
    plant("default", ID, COPIED, record(COPIED_AT - 77, 5, "_SK_s_p"))

    said = (
        "it is stored as created 1798761600, but its record says 1798761523 (2026-12-31 23:58:43 UTC), so that nothing "
        "written under it could be read: correct that, or remove the row"
    )
    assert latest(metastore) == f"key {ID} (latest) in database 'default': {said}"
    assert [row.fault for row in metastore.versions(ID)] == [said, "", ""]
    row = metastore.read(KeyMeta(ID, COPIED_AT))
    assert row is not None
    with pytest.raises(InvalidRecordError, match="1798761523"):
        row.record()


def test_a_copy_of_a_sound_key_is_not_taken_for_it(metastore: DatabaseMetastore, stored: Keys) -> None:
    plant("default", ID, COPIED, stored[KeyMeta(ID, TODAY - DAY)])

    check_that_no_good_key_is_hidden(metastore, stored)
    assert metastore.load_many([KeyMeta(ID, COPIED_AT), *stored]) == stored
    assert "its record says 1795392000" in str(latest(metastore))


@pytest.mark.parametrize("text", RECORDS)
def test_a_record_that_is_no_key_record_hides_no_good_key(
    metastore: DatabaseMetastore, stored: Keys, text: str
) -> None:
    plant("default", ID, COPIED, text)

    check_that_no_good_key_is_hidden(metastore, stored)
    assert f"key {ID} (latest) in database 'default': not an envelope key record" in str(latest(metastore))


def test_a_page_may_end_at_any_column(metastore: DatabaseMetastore, stored: Keys) -> None:
    before = {KeyMeta("_IK_0_s_p", n): record(n, 3) for n in range(ROWS_PER_QUERY)}
    metastore.store_many(before)
    for column in COLUMNS:
        plant("default", ID, column, record(COPIED_AT - 77, 5, "_SK_s_p"))

    for left in range(ROWS_PER_QUERY, ROWS_PER_QUERY - len(COLUMNS) - len(stored), -1):
        rows = [row for row in metastore.scan() if row.key_id != "_IK_0_s_p"]
        assert len(rows) == len(COLUMNS) + len(stored)
        assert sound(rows) == list(stored.values())
        assert metastore.count() == left + len(rows)
        (row,) = execute("default", "SELECT MAX(created) FROM encryption_key WHERE id = '_IK_0_s_p'")
        execute("default", "DELETE FROM encryption_key WHERE id = '_IK_0_s_p' AND created = %s", row)


def test_the_last_second_that_there_is_is_sound(metastore: DatabaseMetastore) -> None:
    last = record(MAX_CREATED, 1)
    assert metastore.store(ID, last) is True
    assert metastore.load_latest(ID) == metastore.load(KeyMeta(ID, MAX_CREATED)) == last
    assert sound(metastore.versions(ID)) == [last]


def test_memory_keeps_to_the_contract() -> None:
    metastore = MemoryMetastore()
    metastore.store(ID, record(TODAY))
    metastore.records[KeyMeta(ID, COPIED_AT)] = record(COPIED_AT - 77)

    assert metastore.load_many([KeyMeta(ID, COPIED_AT), KeyMeta(ID, TODAY)]) == {KeyMeta(ID, TODAY): record(TODAY)}
    for look in (lambda: metastore.load_latest(ID), lambda: metastore.load_latest_many([ID])):
        with pytest.raises(InvalidRecordError, match=r"key _IK_a_s_p \(latest\) in memory: it is stored as created"):
            look()
    assert sound(metastore.versions(ID)) == sound(metastore.scan()) == [record(TODAY)]


@pytest.mark.skipif(VENDOR != "sqlite", reason="other databases' columns hold nothing but text")
@pytest.mark.parametrize("key_id", ["x'5f534b5f735f70'", "x'ff'", "CAST(x'5f494b5fff' AS text)", "CAST(x'ff' AS text)"])
def test_an_id_that_is_no_text_is_no_keys_and_ends_no_scan(
    metastore: DatabaseMetastore, stored: Keys, key_id: str
) -> None:
    statement = f"INSERT INTO encryption_key (id, created, key_record) VALUES ({key_id}, %s, %s)"
    for n in range(ROWS_PER_QUERY + 1):
        moment = f"{datetime.fromtimestamp(TODAY - n, UTC):%Y-%m-%d %H:%M:%S}"
        execute("default", statement, [moment, encode_key(record(TODAY - n, 5))])

    rows = list(metastore.scan())
    assert len(rows) == metastore.count() == ROWS_PER_QUERY + 1 + len(stored)
    assert [row.record() for row in rows if kind_of(row.key_id)] == list(stored.values())
    assert metastore.load_latest("_SK_s_p") is None
