"""From each library's field to ours, as the page tells it: its code is what runs."""

from __future__ import annotations

import datetime
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connection, connections, models, transaction
from django.db.migrations.writer import MigrationWriter
from django_cryptography.fields import Expired
from pytest_django import Settings

from django_asherah import engine
from django_asherah.envelope.records import decode_row
from django_asherah.exceptions import ProofError
from django_asherah.fields import EncryptedTextField
from tests.conversion.conftest import Crash, CrashAt
from tests.databases import VENDOR, WAITING, execute, in_thread, wait_until
from tests.other_libraries import page
from tests.other_libraries.conftest import KEYS, LOST, NUMBERS, WITH_DATABASE, Move, only, params, store
from tests.other_libraries.page import LIBRARIES, Library

pytestmark = [pytest.mark.slow, WITH_DATABASE]

Make = Callable[..., Move]

NULLABLE = ("TextField()", "TextField(null=True)")
VALUES = ["900-12-3456", "Zoë 王🔑", "long, " * 5_000]
GIVEN_BACK = "it is what the column holds: not decrypted, or never encrypted"


def named(package: str) -> Library:
    (library,) = [library for library in LIBRARIES if library.package == package]
    return library


DJANGO_CRYPTOGRAPHY, FERNET, FIELD_ENCRYPTION, MIRAGE = map(
    named,
    ("django-cryptography-5", "django-fernet-encrypted-fields", "django-field-encryption", "django-mirage-field"),
)
LENIENT = replace(
    FIELD_ENCRYPTION,
    package="django-field-encryption, not strict",
    field=FIELD_ENCRYPTION.field.replace("()", "(strict=False)"),
    cannot_decrypt="gives back the ciphertext",
)


def test_every_value_is_copied_into_a_record(make_move: Make, library: Library) -> None:
    move = make_move(NULLABLE)
    move.save(*VALUES, "", None)
    move.add_column()
    whole = [row.pk for row in move.rows if row.ssn is not None]
    assert move.compare() == dict.fromkeys(whole, "it is not copied")
    assert move.copy() == {}
    assert move.compare() == {}
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


@only([library for library in LIBRARIES if library is not MIRAGE])
def test_dates_are_copied_into_a_field_of_dates(
    make_move: Make, library: Library, under_lost_keys: dict[str, list[Any]]
) -> None:
    move = make_move(("TextField", "DateField"))
    day = datetime.date(2026, 2, 28)
    move.save(*[day] * 2)
    execute(move.alias, "UPDATE testapp_patient SET ssn = %s WHERE id = 2", [under_lost_keys[library.package][0]])
    move.add_column()
    assert list(move.by(least=0.5).copy()) == [2]
    assert [day, None] == move.values("ssn_asherah")


@only([MIRAGE])
def test_numbers_are_copied_into_a_field_of_numbers(make_move: Make, under_lost_keys: dict[str, list[Any]]) -> None:
    move = make_move(("TextField", "IntegerField"))
    move.save(900123456, 900123457)
    execute(move.alias, "UPDATE testapp_patient SET ssn = %s WHERE id = 2", [under_lost_keys[MIRAGE.package][0]])
    move.add_column()
    assert move.by(least=0.5).copy() == {2: "it is str, and EncryptedIntegerField holds int"}
    assert move.values("ssn_asherah") == [900123456, None]


@only([DJANGO_CRYPTOGRAPHY, FERNET])
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
                move.by().copy(size=2)
            break
        except Crash:
            done = [raw for raw in move.raw("ssn_asherah") if raw is not None]
        assert move.by().copy(size=2) == {}
        assert move.values("ssn_asherah") == values
        assert move.raw("ssn_asherah")[: len(done)] == done
        copied.add(len(done))
    assert move.values("ssn_asherah") == values
    assert copied == {0, 2, 4, 5}


def test_save_writes_both_columns(make_move: Make, library: Library) -> None:
    move = make_move(NULLABLE)
    move.save("the canary")
    move.add_column()
    patient = move.model.objects.get()
    for value in ("first", "second", None, *[""] * library.keeps_empty):
        patient.ssn = value
        patient.save()
        assert move.values("ssn") == move.values("ssn_asherah") == [value]
        assert move.by(canary=None, risk_a_wrong_key=True).compare() == {}


@only([library for library in LIBRARIES if not library.keeps_empty])
@pytest.mark.parametrize("as_told", [False, True])
def test_where_an_empty_string_is_stored_as_null_save_writes_null_too(make_move: Make, as_told: bool) -> None:
    told = "self.ssn_asherah = self.ssn or None"
    assert f"`{told}`" in page.TEXT
    move = make_move(NULLABLE, *[("self.ssn_asherah = self.ssn", told)] * as_told)
    move.save("the canary")
    move.add_column()
    patient = move.model(ssn="")
    patient.save()
    assert (move.values("ssn")[1], move.values("ssn_asherah")[1]) == (None, None if as_told else "")
    assert move.copy() == {}
    assert move.compare() == ({} if as_told else {patient.pk: "the old column is NULL"})


@only([DJANGO_CRYPTOGRAPHY, FERNET])
@pytest.mark.parametrize("changes", [{"ssn": "new"}, {"ssn": None}, {"ssn_asherah": "new"}], ids=str)
def test_what_was_written_to_one_column_only_is_found_and_copied_anew(make_move: Make, changes: dict[str, Any]) -> None:
    move = make_move(NULLABLE)
    _, pk, _ = move.save("first", "second", "third")
    move.add_column()
    move.copy()
    move.rows.filter(pk=pk).update(**changes)
    why = "the old column is NULL" if changes == {"ssn": None} else "the new value is another"
    assert move.compare() == {pk: why}
    assert move.shell(page.REPAIR) == {}
    assert move.compare() == {}
    assert move.values("ssn_asherah") == move.values("ssn") == ["first", changes.get("ssn", "second"), "third"]


@pytest.mark.parametrize("library", [*params(LIBRARIES), *params([LENIENT])], indirect=True)
class TestAWrongKey:
    """Rows whose old values are under keys that the library doesn't have."""

    @pytest.fixture
    def stored(self, library: Library, under_lost_keys: dict[str, list[Any]]) -> list[Any]:
        return under_lost_keys[library.package.partition(",")[0]]

    @pytest.fixture
    def why(self, library: Library) -> str:
        return library.error or GIVEN_BACK

    def test_the_library_does_what_the_page_says(self, make_move: Make, library: Library, stored: list[Any]) -> None:
        move = make_move()
        move.put(stored[0])
        if library.error:
            with pytest.raises(Exception) as raised:  # noqa: PT011 - of each library its own
                move.values("ssn")
            assert type(raised.value).__name__ == library.error
        else:
            assert move.values("ssn") == move.raw("ssn") == stored[:1]

    def test_in_all_rows_is_refused_before_anything_is_written_or_compared(
        self, make_move: Make, stored: list[Any], why: str
    ) -> None:
        move = make_move()
        pks = move.put(*stored)
        move.add_column()
        with pytest.raises(ProofError) as by_canary:
            move.by(canary={pks[0]: NUMBERS[0]}).copy()
        assert f"testapp.Patient.ssn: the canary pk={pks[0]} proves no key: the old field " in str(by_canary.value)
        with pytest.raises(ProofError) as by_sample:
            move.by(canary=None, risk_a_wrong_key=True).copy()
        assert "only 0 of 40 values of a random sample are plausible, and 90% must be" in str(by_sample.value)
        assert str(by_sample.value).count(why) == 5
        assert move.raw("ssn_asherah") == [None] * 40
        move.rows.update(ssn_asherah="the same garbage")
        for options in ({"canary": {pks[0]: NUMBERS[0]}}, {"canary": None, "risk_a_wrong_key": True}):
            with pytest.raises(ProofError) as refused:
                move.by(**options).compare()
            for error in (by_canary, by_sample, refused):
                assert not [secret for secret in (*NUMBERS, *stored) if str(secret) in str(error.value)]
                assert error.value.__cause__ is error.value.__context__ is None

    def test_in_some_rows_leaves_these_and_the_others_are_copied(
        self, make_move: Make, stored: list[Any], why: str
    ) -> None:
        move = make_move()
        move.save(*NUMBERS[:12])
        left = dict.fromkeys(move.put(*stored[:12]), why)
        move.save(*NUMBERS[12:24])
        move.add_column()
        with pytest.raises(ProofError, match="only 24 of 36 values"):
            move.copy()
        mixed = move.by(least=0.3)
        for _ in range(2):
            assert mixed.copy(size=10) == left
            assert move.values("ssn_asherah") == [*NUMBERS[:12], *[None] * 12, *NUMBERS[12:24]]
            assert mixed.compare() == left

    def test_in_a_few_rows_needs_no_option_and_what_was_cleared_is_done(
        self, make_move: Make, stored: list[Any], why: str
    ) -> None:
        move = make_move()
        move.save(*NUMBERS[:12])
        (lost,) = move.put(stored[0])
        move.add_column()
        assert move.copy() == {lost: why}
        move.rows.filter(pk=lost).update(ssn_asherah=stored[0] if isinstance(stored[0], str) else "garbage")
        assert move.copy() == {}
        assert move.compare() == {lost: why}
        move.rows.filter(pk=lost).delete()
        assert move.compare() == {}


@only([MIRAGE])
def test_a_wrong_key_in_cbc_mode_is_refused_too(make_move: Make, settings: Settings) -> None:
    settings.MIRAGE_CIPHER_MODE = "CBC"
    stored = store(sys.executable, {**LOST, "MIRAGE_CIPHER_MODE": "CBC"}, NUMBERS, MIRAGE)[MIRAGE.package]
    move = make_move()
    move.put(*stored)
    move.add_column()
    with pytest.raises(ProofError, match="only 0 of 40 values"):
        move.by(canary=None, risk_a_wrong_key=True).copy()
    assert move.raw("ssn_asherah") == [None] * 40


@only([named("django-secured-fields")])
def test_a_searchable_column_holds_a_hash_too_and_is_copied_and_left_like_others(make_move: Make) -> None:
    searchable = replace(
        named("django-secured-fields"), field="secured_fields.EncryptedTextField(searchable=True)", package="searchable"
    )
    move = make_move(("TextField()", "TextField(searchable=True)"))
    (stored,) = store(sys.executable, LOST, NUMBERS[:1], searchable)["searchable"]
    assert "$" in stored
    move.save(*NUMBERS)
    (lost,) = move.put(stored)
    move.add_column()
    assert move.copy() == {lost: GIVEN_BACK}
    assert move.values("ssn_asherah") == [*NUMBERS, None]


@only([named("hyperscale-crypto")])
def test_a_context_of_hyperscale_crypto_is_that_of_the_row(make_move: Make) -> None:
    plain = "ssn = hyperscale.crypto.fields.EncryptedTextField("
    move = make_move((f"{plain})", f"clinic = models.TextField()\n    {plain}context=lambda row: row.clinic)"))
    move.add_column()
    move.model.objects.bulk_create(move.model(ssn=number, clinic=number[-1]) for number in NUMBERS)
    moved = move.rows.last().pk
    move.rows.filter(pk=moved).update(clinic="elsewhere")
    assert move.by(canary={moved - 1: NUMBERS[-2]}).copy() == {moved: "DecryptionError"}
    assert move.values("ssn_asherah") == [*NUMBERS[:-1], None]


@only([library for library in LIBRARIES if "list" in library.keys])
def test_an_older_key_in_the_list_is_enough(
    make_move: Make, library: Library, under_older_keys: dict[str, list[Any]]
) -> None:
    move = make_move()
    move.save("in use")
    move.put(*under_older_keys[library.package][:2])
    move.add_column()
    assert move.copy() == {}
    assert move.values("ssn_asherah") == ["in use", *NUMBERS[:2]]


@only([DJANGO_CRYPTOGRAPHY])
@pytest.mark.parametrize("name", ["SECRET_KEY", "CRYPTOGRAPHY_KEY"])
def test_django_cryptography_needs_both_its_keys(make_move: Make, name: str) -> None:
    move = make_move()
    move.save(*NUMBERS)
    (stored,) = store(sys.executable, {**KEYS, name: "lost"}, ["lost"], DJANGO_CRYPTOGRAPHY)["django-cryptography-5"]
    (lost,) = move.put(stored)
    move.add_column()
    assert list(move.copy()) == [lost]
    assert move.values("ssn_asherah") == [*NUMBERS, None]


@only([DJANGO_CRYPTOGRAPHY, MIRAGE])
def test_without_a_list_it_is_copied_under_each_key_in_turn(
    make_move: Make, library: Library, settings: Settings
) -> None:
    name = library.keys.split()[-1] if library is MIRAGE else "SECRET_KEY"
    older = {**KEYS, "SECRET_KEY": "older, and as long as mirage wants", "MIRAGE_SECRET_KEY": ""}
    move = make_move()
    first = move.save(*NUMBERS[:10])
    second = move.put(*store(sys.executable, older, NUMBERS, library)[library.package][:10])
    move.add_column()
    assert move.by(least=0.3).copy() == dict.fromkeys(second, library.error or GIVEN_BACK)
    settings.SECRET_KEY, settings.MIRAGE_SECRET_KEY = older["SECRET_KEY"], ""
    move.load()
    with pytest.raises(ProofError, match=f"the canary pk={first[0]} proves no key"):
        move.copy()
    assert move.by(canary={second[0]: NUMBERS[0]}, least=0.3).copy() == {}, name
    assert move.values("ssn_asherah") == [*NUMBERS[:10], *NUMBERS[:10]]


@only([DJANGO_CRYPTOGRAPHY])
def test_what_django_cryptography_gives_past_its_ttl_is_left(make_move: Make) -> None:
    move = make_move(("TextField())", "TextField(), ttl=-61)"))  # It allows a clock to be a minute wrong.
    (pk,) = move.save("expired")
    move.add_column()
    assert move.values("ssn") == [Expired]
    with pytest.raises(ProofError, match=f"pk={pk}: it is object, and EncryptedTextField holds str"):
        move.by(canary=None, risk_a_wrong_key=True).copy()


def test_what_looks_like_ciphertext_is_left_and_taken_when_its_row_is_accepted(
    make_move: Make, library: Library
) -> None:
    move = make_move()
    move.save(*NUMBERS)
    (pk,) = move.save("gAAAAA is how it begins")
    move.add_column()
    assert move.copy() == {pk: "it looks like ciphertext or a token: a Fernet token"}
    assert move.by(accept=[pk]).compare() == {pk: "it is not copied"}
    assert move.by(accept=[pk]).copy() == {}
    assert move.by(accept=[pk]).compare() == {}
    assert move.values("ssn_asherah") == [*NUMBERS, "gAAAAA is how it begins"]


@only([FERNET, MIRAGE, LENIENT])
def test_what_was_never_encrypted_is_left_until_its_row_is_accepted(make_move: Make) -> None:
    move = make_move()
    move.save(*NUMBERS)
    (pk,) = move.put("in clear")
    move.add_column()
    assert move.copy() == {pk: GIVEN_BACK}
    assert move.by(accept=[pk]).copy() == {}
    assert move.values("ssn_asherah") == [*NUMBERS, "in clear"]


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
            assert move.by(canary=None, risk_a_wrong_key=True).copy() == {}
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
                move.by(canary=None, risk_a_wrong_key=True).copy()
            ended.set()
            writer.result(60)
        assert move.by(canary=None, risk_a_wrong_key=True).copy() == {}
        assert move.values("ssn") == move.values("ssn_asherah") == ["after"]


@pytest.mark.parametrize("nullable", [False, True])
def test_the_last_migration_leaves_one_column_of_records(make_move: Make, library: Library, nullable: bool) -> None:
    values = [*VALUES, *[""] * library.keeps_empty, *[None] * nullable]
    move = make_move(*[NULLABLE] * nullable)
    move.save(*values)
    move.add_column()
    assert move.copy() == {}
    records = move.raw("ssn_asherah")
    operations = page.run(page.SWITCH)["operations"]
    move.migrate(*(operations[1:] if nullable else operations))
    assert move.changes(EncryptedTextField(null=nullable)) == {}
    assert move.raw("ssn") == records
    assert move.values("ssn") == values
    move.save("written later")
    assert move.values("ssn") == [*values, "written later"]


def test_the_last_migration_ends_before_it_removes_what_was_not_copied(make_move: Make, library: Library) -> None:
    move = make_move()
    move.save("copied")
    move.add_column()
    assert move.copy() == {}
    move.save("not copied")
    done = []
    with pytest.raises(DatabaseError):
        for operation in page.run(page.SWITCH)["operations"]:
            move.migrate(operation)
            done.append(operation)
    assert done == []
    assert move.values("ssn") == ["copied", "not copied"]


@only([DJANGO_CRYPTOGRAPHY])
def test_django_cryptography_raises_another_error_where_only_its_own_key_is_wrong(
    make_move: Make, library: Library
) -> None:
    assert "With a wrong `CRYPTOGRAPHY_KEY` alone it raises `InvalidToken`." in page.TEXT
    move = make_move()
    move.put(*store(sys.executable, KEYS | {"CRYPTOGRAPHY_KEY": "lost"}, NUMBERS[:1], library)[library.package])
    with pytest.raises(Exception) as raised:  # noqa: PT011 - django-cryptography's own
        move.values("ssn")
    assert type(raised.value).__name__ == "InvalidToken"


def test_older_migrations_import_the_library_until_its_field_is_replaced(make_move: Make, library: Library) -> None:
    move = make_move()
    old = move.model._meta.get_field("ssn")
    module = library.imports.split()[1]
    assert MigrationWriter.serialize(old)[0].startswith(f"{module}.")
    column: models.Field[Any, Any] = eval(library.column, {"models": models})
    assert old.db_type(connection) in (column.db_type(connection), "text")  # Which MySQL has beside longer ones.
    move.state.models["testapp", "patient"].fields["ssn"] = column  # As if the first migration had been changed.
    move.state.clear_delayed_apps_cache()
    move.add_column()
    move.migrate(*page.run(page.SWITCH)["operations"])
    assert move.changes(EncryptedTextField()) == {}
