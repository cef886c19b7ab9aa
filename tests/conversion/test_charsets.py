"""Columns that are not UTF-8, on MariaDB: each column there has a character set of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import DataError, OperationalError, connections, models
from django.test.utils import CaptureQueriesContext

from django_asherah.exceptions import EncryptionError
from django_asherah.fields import EncryptedJSONField, EncryptedTextField
from django_asherah.lifecycle.conversion import encrypt_column
from django_asherah.lifecycle.exact_session import exact_session
from django_asherah.lifecycle.looks import UNCOMPARABLE
from django_asherah.lifecycle.swap import Swap, swap_values
from django_asherah.operations import AlterRecordFormat
from tests.conversion.conftest import Table
from tests.conversion.test_encrypt import encrypted
from tests.databases import VENDOR, execute

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(VENDOR != "mysql", reason="other databases have one character set for all columns"),
]

Make = Callable[..., Table]

CHARSETS = {
    **dict.fromkeys(["latin1", "cp1250", "utf8mb3", "ucs2", "utf16", "utf16le", "utf32"], "Zoë"),
    **dict.fromkeys(["sjis", "cp932", "gbk", "big5", "ujis", "euckr"], "山田"),
}


def set_type(table: Table, type_: str) -> None:
    execute(table.alias, f"ALTER TABLE moved_thing MODIFY secret {type_} NOT NULL")


def charset(table: Table) -> str:
    return str(
        execute(
            table.alias,
            "SELECT character_set_name FROM information_schema.columns WHERE table_schema = DATABASE() "
            "AND table_name = 'moved_thing' AND column_name = 'secret'",
        )[0][0]
    )


@pytest.mark.parametrize("name", CHARSETS)
@pytest.mark.parametrize(
    ("plain", "type_"),
    [(models.TextField(), "longtext"), (models.CharField(max_length=20), "varchar(20)")],
    ids=["text", "char"],
)
def test_a_column_goes_there_and_back(make_table: Make, name: str, plain: Any, type_: str) -> None:
    texts = [CHARSETS[name], "Zoe", "a\\b'c"]
    table = make_table(plain)
    set_type(table, f"{type_} CHARACTER SET {name}")
    table.save(*texts)
    table.encrypt(EncryptedTextField())
    assert table.values() == texts
    report = table.reencrypt()
    assert (report.rewritten.total(), report.conflicts, report.bad) == (3, 0, [])
    table.decrypt(plain)
    assert (table.raw(), charset(table)) == (texts, name)


def test_an_index_and_a_collation_come_back_too(make_table: Make) -> None:
    table = make_table(models.CharField(max_length=20, db_collation="latin1_german2_ci", unique=True))
    table.save("Zoë", "Zola")
    table.encrypt(EncryptedTextField())
    table.decrypt(models.CharField(max_length=20, db_collation="latin1_german2_ci", unique=True))
    assert (table.raw(), charset(table)) == (["Zoë", "Zola"], "latin1")


def test_a_column_in_a_table_of_a_smaller_charset_keeps_its_own(make_table: Make) -> None:
    table = make_table(models.CharField(max_length=20))
    execute(table.alias, "ALTER TABLE moved_thing DEFAULT CHARACTER SET latin1")
    table.save("山田 🩺")
    execute(table.alias, "SET SESSION sql_mode = ''")
    try:
        table.encrypt(EncryptedTextField())
        assert table.values() == ["山田 🩺"]
        table.decrypt(models.CharField(max_length=20))
    finally:
        connections[table.alias].close()
    assert table.raw() == ["山田 🩺"]


def test_documents(make_table: Make) -> None:
    table = make_table(models.JSONField())
    execute(table.alias, "ALTER TABLE moved_thing DEFAULT CHARACTER SET latin1")
    table.save(["山田 🩺"])
    row = table.model.objects.get()
    table.set_raw(row, '["山田 🩺"]')
    table.encrypt(EncryptedJSONField())
    table.decrypt(models.JSONField())
    assert table.values() == [["山田 🩺"]]


@pytest.mark.parametrize("name", ["latin1", "ucs2"])
def test_what_others_wrote_in_another_case_is_not_lost(make_table: Make, name: str) -> None:
    table = make_table(models.TextField())
    set_type(table, f"longtext CHARACTER SET {name}")
    (row,) = table.save("Zoë")
    table.state = encrypted(table)
    for other in ("zoë", "Zoe", "Zoë ", "Zo?"):
        assert swap_values(connections[table.alias], table.column, [Swap(row.pk, other, "wrong")]) == [row.pk]
    assert swap_values(connections[table.alias], table.column, [Swap(row.pk, "Zoë", "right")]) == []


class TestConnection:
    """One whose character set is not the database's."""

    @pytest.fixture(params=["latin1", "utf8mb3"])
    def alias(self, request: pytest.FixtureRequest, make_alias: Callable[..., str]) -> str:
        return make_alias("narrow", OPTIONS={"charset": request.param})

    def test_it_reads_and_writes_what_is_there(self, make_table: Make, alias: str) -> None:
        table = make_table(models.TextField(), {"id": models.CharField(max_length=9, primary_key=True)}, at="default")
        for key, text in [("山", "🩺"), ("田", "?"), ("?", "山"), ("a", "ë")]:
            table.model.objects.create(id=key, secret=text)
        table.alias, before = alias, execute(alias, "SELECT @@character_set_client, @@character_set_results")
        table.encrypt(EncryptedTextField())
        assert execute(alias, "SELECT @@character_set_client, @@character_set_results") == before
        table.alias = "default"
        read = dict(table.model.objects.values_list("id", "secret"))
        assert read == {"山": "🩺", "田": "?", "?": "山", "a": "ë"}

    def test_keys_that_it_cannot_hold_are_gone_over_once(self, make_table: Make, alias: str) -> None:
        table = make_table(EncryptedTextField(), {"id": models.CharField(max_length=9, primary_key=True)}, at="default")
        for number in range(6):
            table.model.objects.create(id=f"🩺{number}", secret="x")
        table.alias = alias
        read = 0
        with pytest.raises(OperationalError, match="comes twice"):
            for rows in table.column.rows(2):
                read += len(rows)
        assert read <= 12


def test_bytes_that_are_no_text_are_left_and_named_at_once(make_table: Make) -> None:
    table = make_table(models.TextField())
    set_type(table, "longtext CHARACTER SET cp1250")
    rows = table.save("a", "b", "c")
    execute(table.alias, "UPDATE moved_thing SET secret = 0x41810A WHERE id = %s", [rows[1].pk])
    table.state = encrypted(table)
    with CaptureQueriesContext(connections[table.alias]) as sent, pytest.raises(EncryptionError) as caught:
        encrypt_column(table.column)
    assert "1 values could not be encrypted and are left as they were" in str(caught.value)
    assert f"pk={rows[1].pk}: {UNCOMPARABLE}" in str(caught.value)
    assert len(sent) < 120
    assert execute(table.alias, "SELECT HEX(secret) FROM moved_thing WHERE id = %s", [rows[1].pk]) == [("41810A",)]
    execute(table.alias, "UPDATE moved_thing SET secret = 'mended' WHERE id = %s", [rows[1].pk])
    encrypt_column(table.column)
    assert table.values() == ["a", "mended", "c"]


def test_a_text_key_of_another_charset_and_a_folding_collation(make_table: Make) -> None:
    table = make_table(models.TextField(), {"id": models.CharField(max_length=9, primary_key=True)})
    execute(table.alias, "ALTER TABLE moved_thing MODIFY id varchar(9) CHARACTER SET latin1 COLLATE latin1_german1_ci")
    for key in ("Zoë", "ZOF", "zog"):
        table.model.objects.create(id=key, secret=key)
    table.encrypt(EncryptedTextField())
    assert dict(table.model.objects.values_list("id", "secret")) == {"Zoë": "Zoë", "ZOF": "ZOF", "zog": "zog"}


def test_the_session_is_put_back_also_after_an_error(make_table: Make, alias: str) -> None:
    execute(alias, "SET SESSION sql_mode = 'ANSI_QUOTES,NO_ZERO_DATE'")
    try:
        with pytest.raises(ZeroDivisionError), exact_session(connections[alias]):
            assert execute(alias, "SELECT @@sql_mode") == [("ANSI_QUOTES,STRICT_ALL_TABLES",)]
            raise ZeroDivisionError
        assert execute(alias, "SELECT @@sql_mode") == [("ANSI_QUOTES,NO_ZERO_DATE",)]
    finally:
        connections[alias].close()


class TestRecordFormat:
    """``AlterRecordFormat`` takes records from text to bytes and back, whatever the text's character set."""

    @pytest.mark.parametrize("name", ["latin1", "ucs2"])
    def test_there_and_back(self, make_table: Make, name: str) -> None:
        table = make_table(EncryptedTextField())
        execute(table.alias, f"ALTER TABLE moved_thing CONVERT TO CHARACTER SET {name}")
        table.save("Zoë")
        for format_ in ("json-binary", "json"):
            table.migrate(AlterRecordFormat("thing", "secret", EncryptedTextField(record_format=format_)))
            assert table.values() == ["Zoë"]

    def test_compact_records_are_never_made_text(self, make_table: Make) -> None:
        table = make_table(EncryptedTextField(record_format="compact"))
        table.save("x")
        before = table.raw()
        execute(table.alias, "SET SESSION sql_mode = ''")
        try:
            with pytest.raises(DataError, match="the column still holds compact records") as caught:
                table.migrate(AlterRecordFormat("thing", "secret", EncryptedTextField()))
        finally:
            connections[table.alias].close()
        assert caught.value.__context__ is None
        assert table.raw() == before
