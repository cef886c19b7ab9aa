"""DecryptField into a column that can't hold a value: it stays a record, is named, and is shown to nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections, models
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_asherah.exceptions import AsherahError, DecryptionError
from django_asherah.fields import EncryptedJSONField, EncryptedTextField
from django_asherah.lifecycle.conversion import decrypt_column
from tests.conversion.conftest import Table
from tests.databases import VENDOR, execute
from tests.leaks.search import errors_of, holding_frames, holds

pytestmark = pytest.mark.django_db(transaction=True)

Make = Callable[..., Table]

SECRET = "canary-Zoë-900-12-3456"
on_mariadb = pytest.mark.skipif(VENDOR != "mysql", reason="only MySQL and MariaDB have character sets of columns")


def refused(work: Callable[[], Any]) -> AsherahError:
    """Return the error of ``work``, which neither shows the secret nor hangs on an error that does."""
    with pytest.raises(AsherahError) as caught:
        work()
    error = caught.value
    assert list(errors_of(error)) == [error]
    assert holds(str(error), SECRET.encode()) == []
    assert holding_frames(error, SECRET.encode()) == []
    return error


def left(table: Table, plain: models.Field[Any, Any], reason: str, place: int = 1) -> None:
    """Decrypt, and require that the value at ``place`` is left, as it was, and no other."""
    before = table.raw()
    pks = list(table.model.objects.using(table.alias).order_by("pk").values_list("pk", flat=True))
    error = refused(lambda: table.decrypt(plain))
    assert "1 values could not be decrypted and are left as they were; all others are done" in str(error)
    assert f"pk={pks[place]}: {reason}" in str(error)
    assert [now == was for now, was in zip(table.raw(), before, strict=True)] == [n == place for n in range(len(pks))]


class TestCharsets:
    """A character that the column's character set lacks."""

    pytestmark = on_mariadb

    @pytest.fixture(autouse=True, params=["", "STRICT_TRANS_TABLES"], ids=["lenient", "strict"])
    def mode(self, request: pytest.FixtureRequest, transactional_db: None) -> Iterator[None]:
        execute("default", f"SET SESSION sql_mode = '{request.param}'")
        yield
        connections["default"].close()

    @pytest.mark.parametrize("plain", [models.TextField(), models.CharField(max_length=40)], ids=["text", "char"])
    def test_of_the_column_itself(self, make_table: Make, plain: Any) -> None:
        table = make_table(EncryptedTextField())
        execute(table.alias, "ALTER TABLE moved_thing MODIFY secret longtext CHARACTER SET latin1 NOT NULL")
        table.save("Zoë", SECRET + "🩺", "?")
        left(table, plain, "it has a character that the column's character set (latin1) can't hold")
        execute(table.alias, "ALTER TABLE moved_thing MODIFY secret longtext CHARACTER SET utf8mb4 NOT NULL")
        table.decrypt(plain)
        assert table.raw() == ["Zoë", SECRET + "🩺", "?"]

    def test_of_the_column_to_be(self, make_table: Make) -> None:
        table = make_table(EncryptedTextField())
        table.save("Zoë", SECRET + "山", "?")
        left(
            table,
            models.CharField(max_length=40, db_collation="latin1_general_ci"),
            "it has a character that the column's character set (latin1) can't hold",
        )


class TestDocuments:
    """JSON that Python writes and a database refuses."""

    def test_what_is_no_number(self, make_table: Make) -> None:
        table = make_table(EncryptedJSONField())
        table.save([1], [SECRET], [2])
        row = table.model.objects.using(table.alias).all()[1]
        table.set_raw(row, table.field.seal(f'["{SECRET}", NaN]'.encode()))
        left(table, models.JSONField(), "it is no JSON that this database can store")

    @pytest.mark.skipif(VENDOR == "sqlite", reason="SQLite stores it")
    def test_half_a_character(self, make_table: Make) -> None:
        table = make_table(EncryptedJSONField())
        table.save([1], [SECRET, "\ud800"], [2])
        left(table, models.JSONField(), "it is no JSON that this database can store")

    @pytest.mark.skipif(VENDOR != "mysql", reason="only MariaDB limits the depth to 32")
    def test_a_deep_one(self, make_table: Make) -> None:
        table = make_table(EncryptedJSONField())
        value: Any = SECRET
        for _ in range(40):
            value = [value]
        table.save([1], value, [2])
        left(table, models.JSONField(), "it is no JSON that this database can store")

    @pytest.mark.skipif(VENDOR != "postgresql", reason="only jsonb holds numbers as such")
    def test_a_number_that_no_jsonb_holds(self, make_table: Make) -> None:
        table = make_table(EncryptedJSONField(), {"id": models.BigAutoField(primary_key=True)})
        table.save([1], [SECRET], [2])
        row = table.model.objects.all()[1]
        table.set_raw(row, table.field.seal(f'["{SECRET}", 1e999999]'.encode()))
        left(table, models.JSONField(), "it has a number that the database can't hold")


class TestOneEncoding:
    """A PostgreSQL database that is not UTF-8."""

    pytestmark = pytest.mark.skipif(VENDOR != "postgresql", reason="elsewhere the encoding is the column's")

    @pytest.fixture(params=["LATIN1", "SQL_ASCII"])
    def alias(self, request: pytest.FixtureRequest, make_alias: Callable[..., str]) -> Iterator[str]:
        name = f"{connections['default'].settings_dict['NAME']}_{request.param.lower()}"
        execute("default", f"DROP DATABASE IF EXISTS {name}")
        execute("default", f"CREATE DATABASE {name} ENCODING '{request.param}' TEMPLATE template0 LOCALE 'C'")
        alias = make_alias("narrow", NAME=name)
        yield alias
        connections[alias].close()
        execute("default", f"DROP DATABASE {name}")

    def test_a_character_that_it_lacks(self, make_table: Make, alias: str) -> None:
        table = make_table(EncryptedTextField())
        texts = [*map(str, range(9)), SECRET + "山", "Zoë"]
        table.save(*texts)
        if "sql_ascii" in connections[alias].settings_dict["NAME"]:
            table.decrypt(models.TextField())
            assert table.raw() == texts
        else:
            left(table, models.TextField(), "it has a character that the database's encoding", place=9)

    def test_bytes_that_are_no_text_are_left_and_named(self, make_table: Make, alias: str) -> None:
        if "latin1" in connections[alias].settings_dict["NAME"]:
            pytest.skip("every byte is a character there")
        table = make_table(models.TextField())
        rows = table.save("a", "b", "Zoë")
        execute(alias, "UPDATE moved_thing SET secret = E'canary\\xff' WHERE id = %s", [rows[1].pk])
        error = refused(lambda: table.encrypt(EncryptedTextField()))
        assert f"pk={rows[1].pk}: it is no text that this connection can read" in str(error)
        assert "canary" not in str(error)
        execute(alias, "UPDATE moved_thing SET secret = 'mended' WHERE id = %s", [rows[1].pk])
        table.encrypt(EncryptedTextField())
        assert table.values() == ["a", "mended", "Zoë"]


SHOUTS_AFTER = "UPDATE moved_thing SET secret = UPPER(secret) WHERE id = NEW.id"
SHOUTS = "SET NEW.secret = UPPER(NEW.secret)"
TRIGGERS = {
    "postgresql": [
        f"CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {SHOUTS[4:]}; RETURN NEW; END'",
        "CREATE TRIGGER shouts BEFORE UPDATE ON moved_thing FOR EACH ROW EXECUTE FUNCTION shout()",
    ],
    "postgresql afterwards": [
        f"CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {SHOUTS_AFTER}; RETURN NULL; END'",
        (
            "CREATE TRIGGER shouts AFTER UPDATE ON moved_thing FOR EACH ROW WHEN (pg_trigger_depth() = 0) "
            "EXECUTE FUNCTION shout()"
        ),
    ],
    "postgresql at the end": [
        f"CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {SHOUTS_AFTER}; RETURN NULL; END'",
        (
            "CREATE CONSTRAINT TRIGGER shouts AFTER UPDATE ON moved_thing DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
            "WHEN (OLD.secret <> upper(NEW.secret) AND NEW.secret <> upper(NEW.secret)) EXECUTE FUNCTION shout()"
        ),
    ],
    "mysql": [f"CREATE TRIGGER shouts BEFORE UPDATE ON moved_thing FOR EACH ROW {SHOUTS}"],
    "sqlite": [f"CREATE TRIGGER shouts AFTER UPDATE ON moved_thing BEGIN {SHOUTS_AFTER}; END"],
}


@contextmanager
def triggers(table: Table, statements: list[str]) -> Iterator[None]:
    """Make triggers; they go with the table, and PostgreSQL's function with the block."""
    for statement in statements:
        execute(table.alias, statement)
    try:
        yield
    finally:
        if VENDOR == "postgresql":
            execute(table.alias, "DROP FUNCTION shout CASCADE")


@pytest.mark.parametrize("kind", [kind for kind in TRIGGERS if kind.startswith(VENDOR)])
def test_what_the_database_stores_in_another_way_is_rolled_back(make_table: Make, kind: str) -> None:
    table = make_table(EncryptedTextField())
    table.save("LOUD", SECRET, "42")
    with triggers(table, TRIGGERS[kind]):
        left(table, models.TextField(), "the database stores another value in its place")


REFUSES = {
    "postgresql": [
        (
            "CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS "
            f"'BEGIN IF NEW.secret = ''{SECRET}'' THEN RAISE EXCEPTION ''not %'', NEW.secret; END IF; RETURN NEW; END'"
        ),
        "CREATE TRIGGER refuses BEFORE UPDATE ON moved_thing FOR EACH ROW EXECUTE FUNCTION shout()",
    ],
    "mysql": [
        (
            f"CREATE TRIGGER refuses BEFORE UPDATE ON moved_thing FOR EACH ROW IF NEW.secret = '{SECRET}' THEN "
            "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = NEW.secret; END IF"
        )
    ],
    "sqlite": [
        (
            f"CREATE TRIGGER refuses BEFORE UPDATE ON moved_thing WHEN NEW.secret = '{SECRET}' "
            "BEGIN SELECT RAISE(ABORT, 'not that'); END"
        )
    ],
}


def test_what_a_trigger_refuses_keeps_the_others_of_its_batch(make_table: Make) -> None:
    table = make_table(EncryptedTextField())
    table.save("a", SECRET, "b")
    with triggers(table, REFUSES[VENDOR]):
        left(table, models.TextField(), "a trigger of the table refuses it")


@pytest.mark.skipif(VENDOR != "sqlite", reason="only SQLite takes a text for a number because of the column's type")
def test_a_text_that_the_column_takes_for_a_number(make_table: Make) -> None:
    table = make_table(EncryptedTextField())
    execute(table.alias, "DROP TABLE moved_thing")
    execute(table.alias, "CREATE TABLE moved_thing (id integer PRIMARY KEY, secret STRING NOT NULL)")
    table.save("a", "00123", "b")
    left(table, models.TextField(), "the database stores another value in its place")


def test_a_value_that_is_there_twice_in_a_unique_column_is_not_shown(make_table: Make) -> None:
    table = make_table(EncryptedTextField())
    table.save(SECRET, SECRET, "x")
    error = refused(lambda: table.decrypt(models.CharField(max_length=50, unique=True)))
    assert "moved.Thing.secret: the column's change to CharField fails" in str(error)
    assert "another row holds the same value, and the column is unique" in str(error)
    execute(table.alias, "DELETE FROM moved_thing WHERE id = 1")
    table.decrypt(models.CharField(max_length=50, unique=True))
    assert table.raw() == [SECRET, "x"]


class TestTheTypeOfTheColumn:
    """What stands in the column when its type changes was not all written by the move."""

    pytestmark = pytest.mark.skipif(VENDOR == "sqlite", reason="SQLite limits no text")

    @pytest.mark.parametrize("value", [f"{SECRET} is longer", "Zoë  "])
    def test_a_plain_value_is_not_cut(self, make_table: Make, value: str) -> None:
        table = make_table(EncryptedTextField(allow_plaintext=True))
        table.save("a", value, "Zoë")
        execute(table.alias, "UPDATE moved_thing SET secret = %s WHERE id = 2", [value])
        error = refused(lambda: table.decrypt(models.CharField(max_length=4)))
        assert "moved.Thing.secret: the column's change to CharField fails" in str(error)
        assert "the column would not keep these values as they are: pk=2" in str(error)
        assert table.raw() == ["a", value, "Zoë"]
        execute(table.alias, "UPDATE moved_thing SET secret = 'b' WHERE id = 2")
        table.decrypt(models.CharField(max_length=4))
        assert table.raw() == ["a", "b", "Zoë"]

    def test_what_an_earlier_run_wrote_for_a_longer_column_is_not_cut(self, make_table: Make) -> None:
        table = make_table(EncryptedTextField())
        table.save("a", SECRET)
        decrypt_column(table.column)
        error = refused(lambda: table.decrypt(models.CharField(max_length=4)))
        assert "the column would not keep these values as they are: pk=2" in str(error)
        assert table.raw() == ["a", SECRET]

    @pytest.mark.parametrize(("bad", "rest"), [(20, ""), (23, " and more")])
    def test_the_first_twenty_are_named(self, make_table: Make, bad: int, rest: str) -> None:
        table = make_table(EncryptedTextField(allow_plaintext=True))
        for row in table.save("a", *["x"] * bad)[1:]:
            table.set_raw(row, SECRET)
        error = refused(lambda: table.decrypt(models.CharField(max_length=4)))
        assert str(error).count("pk=") == 20
        assert str(error).endswith(f"pk=21{rest}")

    @pytest.mark.skipif(VENDOR != "postgresql", reason="only PostgreSQL has such types")
    @pytest.mark.parametrize(
        ("type_", "value", "kept"), [("numeric(5,2)", "1.005", "1.01"), ("date", "2026-1-5", "2026-01-05")]
    )
    def test_a_value_is_not_written_in_another_way(self, make_table: Make, type_: str, value: str, kept: str) -> None:
        class OtherField(models.CharField):
            def db_type(self, connection: Any) -> str:
                return type_

        table = make_table(EncryptedTextField())
        table.save(kept, value)
        error = refused(lambda: table.decrypt(OtherField(max_length=40)))
        assert "the column would not keep these values as they are: pk=2" in str(error)
        assert table.raw() == [kept, value]


def test_the_queries_that_debug_keeps_hold_no_value(make_table: Make, caplog: pytest.LogCaptureFixture) -> None:
    table = make_table(models.JSONField())
    table.save([SECRET], [SECRET, 2])
    caplog.set_level("DEBUG", "django.db.backends")
    with override_settings(DEBUG=True), CaptureQueriesContext(connections[table.alias]) as sent:
        table.encrypt(EncryptedJSONField())
        table.decrypt(models.JSONField())
    queries = "\n".join(query["sql"] for query in sent)
    assert "moved_thing" in queries
    assert holds(queries + caplog.text, SECRET.encode()) == []
    assert table.values() == [[SECRET], [SECRET, 2]]


def test_a_refused_value_keeps_the_others_of_its_batch(make_table: Make) -> None:
    table = make_table(EncryptedTextField())
    table.save(*["x"] * 20, "much too long", *["y"] * 20)
    with pytest.raises(DecryptionError, match="1 values could not be decrypted"):
        table.decrypt(models.CharField(max_length=3))
    assert sum(raw in {"x", "y"} for raw in table.raw()) == 40
