"""From each library's field to ours, as the page tells it: its code is what runs."""

from __future__ import annotations

import datetime
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
from cryptography.fernet import InvalidToken
from django.core.signing import BadSignature
from django.db import OperationalError, connection, connections, models, transaction
from django.db.migrations.writer import MigrationWriter
from django_cryptography.fields import Expired
from pytest_django import Settings

from django_asherah import engine
from django_asherah.envelope.records import decode_row
from django_asherah.fields import EncryptedTextField
from tests.conversion.conftest import Crash, CrashAt
from tests.databases import VENDOR, WAITING, execute, in_thread, wait_until
from tests.other_libraries import page
from tests.other_libraries.conftest import KEYS, WITH_DATABASE, Move, only, store
from tests.other_libraries.page import LIBRARIES, Library

pytestmark = [pytest.mark.slow, WITH_DATABASE]

Make = Callable[..., Move]

NULLABLE = ("TextField()", "TextField(null=True)")
VALUES = ["900-12-3456", "Zoë 王🔑", "long, " * 20_000]
ERRORS = {"raises BadSignature": BadSignature, "raises InvalidToken": InvalidToken}
DJANGO_CRYPTOGRAPHY = [library for library in LIBRARIES if library.package == "django-cryptography-5"]


def test_every_value_is_copied_into_a_record(make_move: Make, library: Library) -> None:
    move = make_move(NULLABLE)
    move.save(*VALUES, "", None)
    move.add_column()
    assert move.unlike() == list(move.rows.filter(ssn__isnull=False).values_list("pk", flat=True))
    assert move.copy() == {}
    assert move.unlike() == []
    expected = [*VALUES, "" if library.keeps_empty else None, None]
    assert move.values("ssn") == move.values("ssn_asherah") == expected
    session = engine.get_session()
    for raw, value in zip(move.raw("ssn_asherah"), expected, strict=True):
        if value is None:
            assert raw is None
        else:
            assert decode_row(raw)
            assert session.decrypt(raw) == value.encode()
            assert not value or value not in raw


def test_dates_are_copied_when_the_page_s_kind_is_that(
    make_move: Make, library: Library, under_lost_keys: dict[str, Any]
) -> None:
    move = make_move(("TextField", "DateField"), ("KIND = str", "KIND = __import__('datetime').date"))
    day = datetime.date(2026, 2, 28)
    _, lost = move.save(day, day)
    move.put(lost, under_lost_keys[library.package])
    move.add_column()
    assert list(move.copy()) == [lost]
    assert [day, None] == move.values("ssn_asherah")


def test_broken_off_before_any_statement_and_run_again_it_copies_the_rest(make_move: Make) -> None:
    values = [f"value {number}" for number in range(5)]
    move = make_move()
    move.save(*values)
    move.add_column()
    engine.get_session().encrypt(b"so that the key is there")
    copied = set()
    for number in count():
        move.rows.update(ssn_asherah=None)
        try:
            with CrashAt("default", number):
                move.copy(size=2)
            break
        except Crash:
            done = [raw for raw in move.raw("ssn_asherah") if raw is not None]
        assert move.copy(size=2) == {}
        assert move.values("ssn_asherah") == values
        assert move.raw("ssn_asherah")[: len(done)] == done
        copied.add(len(done))
    assert move.values("ssn_asherah") == values
    assert copied == {0, 2, 4, 5}


def test_save_writes_both_columns(make_move: Make, library: Library) -> None:
    move = make_move(NULLABLE)
    move.add_column()
    patient = move.model()
    for value in ("first", "second", None, *[""] * library.keeps_empty):
        patient.ssn = value
        patient.save()
        assert move.values("ssn") == move.values("ssn_asherah") == [value]
        assert move.unlike() == []


@only([library for library in LIBRARIES if not library.keeps_empty])
@pytest.mark.parametrize("as_told", [False, True])
def test_where_an_empty_string_is_stored_as_null_save_writes_null_too(make_move: Make, as_told: bool) -> None:
    told = "self.ssn_asherah = self.ssn or None"
    assert f"`{told}`" in page.TEXT
    move = make_move(NULLABLE, *[("self.ssn_asherah = self.ssn", told)] * as_told)
    move.add_column()
    patient = move.model(ssn="")
    patient.save()
    assert (move.values("ssn"), move.values("ssn_asherah")) == ([None], [None if as_told else ""])
    assert move.unlike() == ([] if as_told else [patient.pk])


@pytest.mark.parametrize("changes", [{"ssn": "new"}, {"ssn": None}, {"ssn_asherah": "new"}], ids=str)
def test_what_was_written_to_one_column_only_is_found_and_copied_anew(make_move: Make, changes: dict[str, Any]) -> None:
    move = make_move(NULLABLE)
    _, pk, _ = move.save("first", "second", "third")
    move.add_column()
    move.copy()
    move.rows.filter(pk=pk).update(**changes)
    assert move.unlike() == [pk]
    assert move.shell(page.REPAIR) == {}
    assert move.unlike() == []
    assert move.values("ssn_asherah") == move.values("ssn") == ["first", changes.get("ssn", "second"), "third"]


class TestCannotDecrypt:
    """A row among others whose old value is under keys that are lost."""

    @pytest.fixture
    def stored(self, library: Library, under_lost_keys: dict[str, Any]) -> Any:
        return under_lost_keys[library.package]

    @pytest.fixture
    def move(self, make_move: Make, stored: Any) -> Move:
        move = make_move(NULLABLE)
        _, self.lost, _ = move.save("first", "lost", "last")
        move.put(self.lost, stored)
        move.add_column()
        return move

    def test_the_library_does_what_the_page_says(self, move: Move, library: Library, stored: Any) -> None:
        value = move.rows.filter(pk=self.lost).values_list("ssn", flat=True)
        if library.cannot_decrypt == "gives back the ciphertext":
            assert value.get() == stored
        else:
            with pytest.raises(ERRORS[library.cannot_decrypt]):
                value.get()

    def test_it_is_left_and_named_and_the_others_are_copied(self, move: Move, library: Library) -> None:
        word, error = library.cannot_decrypt.split(" ", 1)
        left = {self.lost: error if word == "raises" else "ValueError"}
        assert move.copy(size=2) == left
        assert move.values("ssn_asherah") == ["first", None, "last"]
        assert move.copy() == left
        assert move.unlike() == [self.lost]

    def test_ciphertext_that_was_written_to_the_new_column_is_found(self, move: Move, stored: Any) -> None:
        move.rows.filter(pk=self.lost).update(ssn_asherah=stored if isinstance(stored, str) else "lost")
        assert move.copy() == {}
        assert move.unlike() == [self.lost]

    def test_cleared_it_is_done(self, move: Move) -> None:
        move.rows.filter(pk=self.lost).update(ssn=None)
        assert move.copy() == {}
        assert move.unlike() == []
        assert move.values("ssn_asherah") == ["first", None, "last"]


@only([library for library in LIBRARIES if "list" in library.keys])
def test_an_older_key_in_the_list_is_enough(
    make_move: Make, library: Library, under_older_keys: dict[str, Any]
) -> None:
    move = make_move()
    _, older = move.save("in use", "older")
    move.put(older, under_older_keys[library.package])
    move.add_column()
    assert move.copy() == {}
    assert move.values("ssn_asherah") == ["in use", "older"]


@only(DJANGO_CRYPTOGRAPHY)
@pytest.mark.parametrize("name", ["SECRET_KEY", "CRYPTOGRAPHY_KEY"])
def test_django_cryptography_needs_both_its_keys(make_move: Make, library: Library, name: str) -> None:
    move = make_move()
    _, lost = move.save("first", "lost")
    move.put(lost, store(sys.executable, {**KEYS, name: "lost"}, "lost", library.package)[library.package])
    move.add_column()
    assert list(move.copy()) == [lost]
    assert move.values("ssn_asherah") == ["first", None]


@only(DJANGO_CRYPTOGRAPHY)
def test_django_cryptography_is_copied_under_each_key_in_turn(
    make_move: Make, library: Library, settings: Settings
) -> None:
    move = make_move()
    _, older = move.save("in use", "older")
    move.put(older, store(sys.executable, {**KEYS, "SECRET_KEY": "older"}, "older", library.package)[library.package])
    move.add_column()
    assert move.copy() == {older: "BadSignature"}
    settings.SECRET_KEY = "older"
    move.load()
    assert move.copy() == {}
    assert move.values("ssn_asherah") == ["in use", "older"]


@only(DJANGO_CRYPTOGRAPHY)
def test_what_django_cryptography_gives_past_its_ttl_is_left(make_move: Make) -> None:
    move = make_move(("TextField())", "TextField(), ttl=-61)"))  # It allows a clock to be a minute wrong.
    (pk,) = move.save("expired")
    move.add_column()
    assert move.values("ssn") == [Expired]
    assert move.copy() == {pk: "ValueError"}
    assert move.unlike() == [pk]


def test_text_that_begins_like_ciphertext_is_left(make_move: Make) -> None:
    move = make_move()
    (pk,) = move.save("gAAAAA is how it begins")
    move.add_column()
    assert move.copy() == {pk: "ValueError"}


@only(LIBRARIES[:1])
class TestWriters:
    """Others write a row that has been read and not yet copied."""

    @pytest.fixture
    def alias(self, transactional_db: None, request: pytest.FixtureRequest) -> str:
        return request.getfixturevalue("file_alias") if VENDOR == "sqlite" else "default"

    @pytest.fixture
    def move(self, make_move: Make) -> Move:
        move = make_move()
        move.save("before")
        move.add_column()
        engine.get_session().encrypt(b"so that the key is there")
        return move

    def copy_while(self, move: Move, meanwhile: Callable[[], None]) -> None:
        """Copy, and call ``meanwhile`` before the first row is written."""
        calls = [meanwhile]

        def before_update(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            if sql.startswith("UPDATE") and calls:
                calls.pop()()
            return execute(sql, params, many, context)

        with connections[move.alias].execute_wrapper(before_update):
            assert move.copy(using=move.alias) == {}
        assert not calls

    def write(self, move: Move, value: str) -> None:
        patient = move.model._base_manager.using(move.alias).get()
        patient.ssn = value
        patient.save()

    @pytest.mark.skipif(VENDOR == "sqlite", reason="SQLite locks no rows: see the tests of its own below")
    def test_a_writer_waits_for_the_batch(self, move: Move) -> None:
        writers: list[Future[None]] = []

        def meanwhile() -> None:
            writers.append(pool.submit(in_thread, lambda: self.write(move, "after")))
            # InnoDB makes its tables of locks anew only if nobody has read them for 0.1 seconds.
            wait_until(lambda: execute("default", WAITING) != [(0,)], every=0.2)

        with ThreadPoolExecutor(1) as pool:
            self.copy_while(move, meanwhile)
            writers[0].result(60)
        assert move.values("ssn") == move.values("ssn_asherah") == ["after"]

    @pytest.mark.skipif(VENDOR != "sqlite", reason="only SQLite locks the database as a whole")
    def test_on_sqlite_a_writer_may_be_told_that_it_is_locked(self, move: Move) -> None:
        def meanwhile() -> None:
            with pytest.raises(OperationalError, match="database is locked"):
                in_thread(lambda: self.write(move, "refused"))

        self.copy_while(move, meanwhile)
        self.write(move, "after")
        assert move.values("ssn") == move.values("ssn_asherah") == ["after"]

    @pytest.mark.skipif(VENDOR != "sqlite", reason="only SQLite locks the database as a whole")
    def test_on_sqlite_the_copy_may_be_told_that_it_is_locked(self, move: Move) -> None:
        written, ended = threading.Event(), threading.Event()

        def write() -> None:
            with transaction.atomic(using=move.alias):
                self.write(move, "after")
                written.set()
                assert ended.wait(30)

        with ThreadPoolExecutor(1) as pool:
            writer = pool.submit(in_thread, write)
            assert written.wait(30)
            with pytest.raises(OperationalError, match="database is locked"):
                move.copy(using=move.alias)
            ended.set()
            writer.result(60)
        assert move.copy(using=move.alias) == {}
        assert move.values("ssn") == move.values("ssn_asherah") == ["after"]


@pytest.mark.parametrize("nullable", [False, True])
def test_the_last_migration_leaves_one_column_of_records(make_move: Make, library: Library, nullable: bool) -> None:
    values = [*VALUES, *[""] * library.keeps_empty, *[None] * nullable]
    move = make_move(*[NULLABLE] * nullable)
    move.save(*values)
    move.add_column()
    move.copy()
    records = move.raw("ssn_asherah")
    operations = page.run(page.SWITCH)["operations"]
    move.migrate(*(operations[:-1] if nullable else operations))
    assert move.changes(EncryptedTextField(null=nullable)) == {}
    assert move.raw("ssn") == records
    assert move.values("ssn") == values
    move.save("written later")
    assert move.values("ssn") == [*values, "written later"]


def test_older_migrations_import_the_library_until_its_field_is_replaced(make_move: Make, library: Library) -> None:
    move = make_move()
    old = move.model._meta.get_field("ssn")
    module = library.imports.split()[1]
    assert MigrationWriter.serialize(old)[0].startswith(f"{module}.")
    column: models.Field[Any, Any] = eval(library.column, {"models": models})
    assert column.db_type(connection) == old.db_type(connection)
    move.state.models["testapp", "patient"].fields["ssn"] = column  # As if the first migration had been changed.
    move.state.clear_delayed_apps_cache()
    move.add_column()
    move.migrate(*page.run(page.SWITCH)["operations"])
    assert move.changes(EncryptedTextField()) == {}
