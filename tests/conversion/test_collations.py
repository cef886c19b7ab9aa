"""Columns that take different texts for the same, pad them, or hold what is no text: on PostgreSQL and SQLite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections, models
from django.test.utils import CaptureQueriesContext

from django_asherah.exceptions import EncryptionError
from django_asherah.fields import EncryptedTextField
from django_asherah.lifecycle.conversion import encrypt_column
from django_asherah.lifecycle.looks import UNCOMPARABLE
from django_asherah.lifecycle.progress import tell_nobody
from django_asherah.lifecycle.reencryption import Options, ReencryptionReport, _Rewriter
from django_asherah.lifecycle.swap import Swap, swap_values
from tests.conversion.conftest import Table
from tests.conversion.test_encrypt import encrypted
from tests.databases import VENDOR, execute

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(VENDOR == "mysql", reason="tests/conversion/test_charsets.py has MariaDB's"),
]

Make = Callable[..., Table]

NOCASE = "CREATE COLLATION IF NOT EXISTS moved_nocase (provider=icu, locale='und-u-ks-level2', deterministic=false)"
TYPES = {
    "postgresql": ["text COLLATE moved_nocase", "varchar(900) COLLATE moved_nocase", "citext"],
    "sqlite": ["text COLLATE NOCASE", "text COLLATE RTRIM", "blob"],
}


@pytest.fixture
def alias() -> str:
    return "default"


@pytest.fixture
def make(make_table: Make) -> Iterator[Callable[..., Table]]:
    """Make a table whose column is of a type that Django knows nothing of."""
    if VENDOR == "postgresql":
        execute("default", NOCASE)
        execute("default", "CREATE EXTENSION IF NOT EXISTS citext")

    def make(type_: str, id_: str = "") -> Table:
        table = make_table(models.TextField())
        execute("default", "DROP TABLE moved_thing")
        serial = "bigserial" if VENDOR == "postgresql" else "integer"
        execute("default", f"CREATE TABLE moved_thing (id {id_ or serial} PRIMARY KEY, secret {type_} NOT NULL)")
        return table

    yield make
    if VENDOR == "postgresql":
        execute("default", "DROP TABLE IF EXISTS moved_thing")
        execute("default", "DROP EXTENSION citext CASCADE")
        execute("default", "DROP COLLATION moved_nocase")


@pytest.mark.parametrize("type_", TYPES.get(VENDOR, []))
def test_a_text_is_replaced_only_if_it_is_the_very_same(make: Any, type_: str) -> None:
    table = make(type_)
    (row,) = table.save("Zoë")
    table.state = encrypted(table)
    for other in ("zoë", "ZOË", "Zoë ", "Zoe"):
        assert swap_values(connections["default"], table.column, [Swap(row.pk, other, "wrong")]) == [row.pk]
    assert swap_values(connections["default"], table.column, [Swap(row.pk, "Zoë", "right")]) == []


@pytest.mark.parametrize("type_", TYPES.get(VENDOR, []))
def test_such_a_column_goes_there_and_back(make: Any, type_: str) -> None:
    table = make(type_)
    texts = ["Zoë", "zoë", "Zoë ", "", "ZOË"]
    table.save(*texts)
    table.encrypt(EncryptedTextField())
    assert table.values() == texts
    report = table.reencrypt()
    assert (report.rewritten.total(), report.conflicts, report.bad) == (5, 0, [])
    table.decrypt(models.TextField())
    assert table.raw() == texts


@pytest.mark.skipif(VENDOR != "postgresql", reason="only PostgreSQL pads what is read")
def test_a_padded_column_is_left_and_named_and_not_looked_at_for_ever(make: Any) -> None:
    table = make("char(10)")
    rows = table.save("a", "b")
    with CaptureQueriesContext(connections["default"]) as sent, pytest.raises(EncryptionError) as caught:
        table.encrypt(EncryptedTextField())
    assert all(f"pk={row.pk}: {UNCOMPARABLE}" in str(caught.value) for row in rows)
    assert len(sent) < 60
    assert table.raw() == ["a         ", "b         "]
    execute("default", "ALTER TABLE moved_thing ALTER secret TYPE text")
    table.encrypt(EncryptedTextField())
    assert table.values() == ["a", "b"]


@pytest.mark.skipif(VENDOR != "postgresql", reason="only PostgreSQL has such keys")
@pytest.mark.parametrize("key", ["text COLLATE moved_nocase", "citext"])
def test_a_key_of_a_folding_collation(make: Any, key: str) -> None:
    table = make("text", key)
    for each in ("Zoë", "ZOF", "zog"):
        execute("default", "INSERT INTO moved_thing VALUES (%s, %s)", [each, each])
    table.state = table.state.clone()
    table.state.models["moved", "thing"].fields["id"] = models.CharField(max_length=9, primary_key=True)
    table.state.reload_model("moved", "thing")
    table.encrypt(EncryptedTextField())
    assert dict(table.model.objects.values_list("id", "secret")) == {"Zoë": "Zoë", "ZOF": "ZOF", "zog": "zog"}


@pytest.mark.skipif(VENDOR != "sqlite", reason="only SQLite holds any type in a column of text")
class TestNoText:
    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("5", "it is no text, but of type int"),
            ("1.5", "it is no text, but of type float"),
            ("CAST(x'63616e617279ff' AS TEXT)", "it is no text that this connection can read"),
            ("x'63616e617279ff'", "it is neither a record nor a value"),
        ],
        ids=["integer", "real", "broken text", "bytes"],
    )
    def test_it_is_left_and_named(self, make: Any, value: str, reason: str) -> None:
        table = make("blob")
        rows = table.save("a", "b", "c")
        execute("default", f"UPDATE moved_thing SET secret = {value} WHERE id = 2")
        table.state = encrypted(table)  # Django would copy the table, and numbers become text.
        with pytest.raises(EncryptionError) as caught:
            encrypt_column(table.column)
        assert "1 values could not be encrypted and are left as they were" in str(caught.value)
        assert f"pk={rows[1].pk}: {reason}" in str(caught.value)
        assert "canary" not in str(caught.value)
        assert execute("default", f"SELECT secret IS {value} FROM moved_thing WHERE id = 2") == [(1,)]
        execute("default", "UPDATE moved_thing SET secret = 'mended' WHERE id = 2")
        encrypt_column(table.column)
        assert table.values() == ["a", "mended", "c"]

    def test_re_encryption_and_its_verification_leave_and_name_it_too(self, make: Any) -> None:
        table = make("blob")
        table.save("a", "b")
        table.encrypt(EncryptedTextField())
        execute("default", "UPDATE moved_thing SET secret = CAST(x'63616e617279ff' AS TEXT) WHERE id = 2")
        report = ReencryptionReport()
        _Rewriter(table.column, Options(all=True), report, tell_nobody).run()
        assert (report.rewritten.total(), [bad.pk for bad in report.bad]) == (1, ["2"])
        assert "canary" not in report.bad[0].reason

    def test_bytes_that_are_text_become_text(self, make: Any) -> None:
        table = make("blob")
        table.save("a")
        execute("default", "UPDATE moved_thing SET secret = CAST('Zoë' AS BLOB)")
        table.state = encrypted(table)
        encrypt_column(table.column)
        assert table.values() == ["Zoë"]
