"""EncryptField: plain columns become columns of records."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, NotSupportedError, connections, models
from django.db.migrations import AlterField
from django.db.migrations.optimizer import MigrationOptimizer
from pytest_django import Settings

from django_asherah import audit, engine, signals
from django_asherah.envelope.records import decode_row
from django_asherah.exceptions import EncryptionError, KMSError
from django_asherah.fields import EncryptedFieldMixin, EncryptedJSONField, EncryptedTextField
from django_asherah.lifecycle.conversion import encrypt_column
from django_asherah.lifecycle.replacing import replace_values
from django_asherah.lifecycle.swap import ROWS_PER_TRANSACTION, Swap
from django_asherah.operations import DecryptField, EncryptField
from tests.conversion.conftest import Table
from tests.databases import VENDOR

pytestmark = pytest.mark.django_db(transaction=True)

Make = Callable[..., Table]

PARENT = '"ParentKeyMeta":{"KeyId":"_IK_x","Created":1}'
RECORD = f'{{"Key":{{"Created":1,"Key":"{"A" * 80}",{PARENT}}},"Data":"{"B" * 80}"}}'
TEXTS = ["x", "", " ", "null", "Zoë 🩺", "a\\b'c\"d%s", "1", RECORD, '{"Key":{', RECORD[:-9], "y" * 100_000]
DOCUMENTS = [{"a": [1, None, 1.5, {"b": "ü"}]}, [], {}, "", 0, False, "text", {"Key": {}}, {"Data": "x"}]


def opened(raw: str) -> bytes:
    return engine.get_session().decrypt(raw)


class TestText:
    def test_every_value_becomes_a_record_of_itself(self, make_table: Make) -> None:
        table = make_table(models.TextField())
        table.save(*TEXTS)
        table.encrypt(EncryptedTextField())
        assert [opened(raw) for raw in table.raw()] == [text.encode() for text in TEXTS]
        assert table.values() == TEXTS

    def test_a_char_field_grows_into_a_column_of_text(self, make_table: Make) -> None:
        table = make_table(models.CharField(max_length=11, db_index=True))
        table.save("900-12-3456", "", "ü" * 11)
        table.encrypt(EncryptedTextField(max_length=11))
        assert [opened(raw) for raw in table.raw()] == [b"900-12-3456", b"", ("ü" * 11).encode()]
        table.save("z" * 1000)
        assert table.values()[-1] == "z" * 1000

    def test_null_stays_null(self, make_table: Make) -> None:
        table = make_table(models.TextField(null=True))
        table.save(None, "x", None)
        table.encrypt(EncryptedTextField(null=True))
        assert table.raw()[::2] == [None, None]
        assert table.values() == [None, "x", None]

    def test_an_empty_table(self, make_table: Make) -> None:
        table = make_table(models.TextField())
        table.encrypt(EncryptedTextField())
        table.save("x")
        assert opened(table.raw()[0]) == b"x"

    def test_more_than_one_batch(self, make_table: Make) -> None:
        table = make_table(models.TextField())
        texts = [str(number) for number in range(ROWS_PER_TRANSACTION * 2 + 1)]
        table.model.objects.using(table.alias).bulk_create(table.model(secret=text) for text in texts)
        table.encrypt(EncryptedTextField())
        assert table.values() == texts
        assert all(decode_row(raw) for raw in table.raw())

    def test_long_values_are_not_all_in_one_statement(self, make_table: Make) -> None:
        table = make_table(models.TextField())
        rows = table.save(*"abcde")
        table.state = encrypted(table)
        swaps = [Swap(row.pk, value, value * 9_000_000) for row, value in zip(rows, "abcde", strict=True)]
        together: list[list[str]] = []
        outcome = replace_values(table.column, swaps, lambda done: together.append([swap.before for swap in done]))
        assert (outcome.written, together) == (5, [["a", "b", "c"], ["d", "e"]])
        assert [(raw[0], len(raw)) for raw in table.raw()] == [(value, 9_000_000) for value in "abcde"]

    def test_the_partition_is_the_fields(self, make_table: Make) -> None:
        table = make_table(models.TextField())
        table.save("x")
        table.encrypt(EncryptedTextField(partition="other"))
        assert engine.get_session("other").decrypt(table.raw()[0]) == b"x"


class TestJSON:
    def test_every_document_becomes_a_record(self, make_table: Make) -> None:
        table = make_table(models.JSONField())
        table.save(*DOCUMENTS)
        table.encrypt(EncryptedJSONField())
        assert all(opened(raw) for raw in table.raw())
        assert table.values() == DOCUMENTS

    def test_json_null_stays_apart_from_null(self, make_table: Make) -> None:
        table = make_table(models.JSONField(null=True))
        table.save(None, models.Value(None, models.JSONField()))
        table.encrypt(EncryptedJSONField(null=True))
        assert table.raw()[0] is None
        assert opened(table.raw()[1]) == b"null"

    def test_numbers_that_no_float_holds_are_kept(self, make_table: Make) -> None:
        table = make_table(models.JSONField())
        (row,) = table.save({})
        table.set_raw(row, '{"n": 1.2345678901234567890123}')
        table.encrypt(EncryptedJSONField())
        assert opened(table.raw()[0]) == b'{"n": 1.2345678901234567890123}'

    def test_a_document_that_is_a_record_of_another_partition_is_a_document(self, make_table: Make) -> None:
        foreign = engine.get_session("elsewhere").encrypt(b"x")
        table = make_table(models.JSONField())
        (row,) = table.save({})
        table.set_raw(row, foreign)
        table.encrypt(EncryptedJSONField())
        assert table.values()[0]["Key"]["ParentKeyMeta"]["KeyId"] == "_IK_elsewhere_suite_tests"

    def test_text_that_is_no_json_is_left_and_named(self, make_table: Make) -> None:
        table = make_table(models.TextField())
        rows = table.save("{}", "a secret, not JSON", "[1]")
        with pytest.raises(EncryptionError) as caught:
            table.encrypt(EncryptedJSONField())
        assert "moved.Thing.secret: 1 values could not be encrypted and are left as they were" in str(caught.value)
        assert f"pk={rows[1].pk}: " in str(caught.value)
        assert "a secret" not in str(caught.value)
        assert table.raw()[1] == "a secret, not JSON"
        table.set_raw(rows[1], '"mended"')
        table.encrypt(EncryptedJSONField())
        assert table.values() == [{}, "mended", [1]]


class TestKeys:
    """Every kind of primary key."""

    def test_a_uuid(self, make_table: Make) -> None:
        table = make_table(models.TextField(), {"id": models.UUIDField(primary_key=True, default=uuid.uuid4)})
        table.save(*map(str, range(20)))
        before = table.values()
        table.encrypt(EncryptedTextField())
        assert table.values() == before
        assert sorted(opened(raw) for raw in table.raw()) == sorted(str(n).encode() for n in range(20))

    @pytest.mark.skipif(VENDOR == "mysql", reason="MySQL has no such keys")
    def test_bytes(self, make_table: Make) -> None:
        table = make_table(models.TextField(), {"id": models.BinaryField(primary_key=True)})
        rows = {b"\0": "zero", b"\xff\0": "not UTF-8", b"abc": "the same", b"YWJj": "the same"}
        for key, value in rows.items():
            table.model.objects.using(table.alias).create(id=key, secret=value)
        table.encrypt(EncryptedTextField())
        assert table.reencrypt().bad == []
        assert {bytes(row.pk): row.secret for row in table.model.objects.using(table.alias)} == rows
        table.decrypt(models.TextField())
        assert {bytes(row.pk): row.secret for row in table.model.objects.using(table.alias)} == rows

    def test_a_composite_one(self, make_table: Make) -> None:
        table = make_table(
            models.TextField(),
            {
                "pk": models.CompositePrimaryKey("tenant", "number"),
                "tenant": models.IntegerField(),
                "number": models.CharField(max_length=9),
            },
        )
        for tenant in range(3):
            for number in "ab":
                table.model.objects.using(table.alias).create(tenant=tenant, number=number, secret=f"{tenant}{number}")
        table.encrypt(EncryptedTextField())
        assert sorted(opened(raw) for raw in table.raw()) == [b"0a", b"0b", b"1a", b"1b", b"2a", b"2b"]
        assert table.values() == ["0a", "0b", "1a", "1b", "2a", "2b"]


class TestRecords:
    """What is a record already."""

    def test_an_authentic_one_is_neither_taken_nor_sealed_again(self, make_table: Make) -> None:
        table = make_table(models.TextField())
        stolen = engine.get_session().encrypt(b"of another column")
        rows = table.save("x", stolen)
        with pytest.raises(EncryptionError, match=f"pk={rows[1].pk}: it is a record of this very partition already"):
            table.encrypt(EncryptedTextField())
        assert table.raw()[1] == stolen
        assert opened(table.raw()[0]) == b"x"

    def test_with_allow_plaintext_the_running_code_wrote_it(self, make_table: Make) -> None:
        table = make_table(models.TextField())
        written = engine.get_session().encrypt(b"by the new code")
        table.save("x", written)
        table.encrypt(EncryptedTextField(allow_plaintext=True))
        assert table.raw()[1] == written
        assert table.values() == ["x", "by the new code"]

    @pytest.mark.parametrize("damaged", [RECORD, RECORD[:-9], '{"Key":{', RECORD[10:]])
    def test_with_allow_plaintext_a_damaged_one_is_an_error_and_left_as_it_is(
        self, make_table: Make, damaged: str
    ) -> None:
        table = make_table(models.TextField())
        rows = table.save("x", damaged)
        with pytest.raises(EncryptionError, match=f"pk={rows[1].pk}: "):
            table.encrypt(EncryptedTextField(allow_plaintext=True))
        assert table.raw()[1] == damaged
        assert opened(table.raw()[0]) == b"x"


class TestWriters:
    """Others write while the batches run."""

    def test_plaintext_written_over_a_record_is_encrypted_in_the_next_pass(self, make_table: Make) -> None:
        table = make_table(models.TextField())
        rows = table.save("a", "b")
        table.state = encrypted(table)
        writes = [(rows[0], "written over"), (rows[1], RECORD)]

        def write(count: int) -> None:
            if writes:
                table.set_raw(*writes.pop())

        assert encrypt_column(table.column, write) == 4
        assert [opened(raw) for raw in table.raw()] == [b"written over", RECORD.encode()]

    def test_a_record_written_back_as_it_was_stands(self, make_table: Make) -> None:
        table = make_table(models.TextField())
        rows = table.save("a")
        table.state = encrypted(table)
        assert encrypt_column(table.column, lambda count: table.set_raw(rows[0], table.raw()[0])) == 1
        assert opened(table.raw()[0]) == b"a"

    def test_a_record_moved_to_another_row_is_refused(self, make_table: Make) -> None:
        table = make_table(models.TextField())
        rows = table.save("a", "b")
        table.state = encrypted(table)
        with pytest.raises(EncryptionError, match=f"pk={rows[1].pk}: it is a record of this very partition already"):
            encrypt_column(table.column, lambda count: table.set_raw(rows[1], table.raw()[0]))

    def test_one_who_never_stops_is_told_of(self, make_table: Make) -> None:
        table = make_table(models.TextField())
        rows = table.save("a")
        table.state = encrypted(table)
        with pytest.raises(EncryptionError, match="others keep writing the other kind of value"):
            encrypt_column(table.column, lambda count: table.set_raw(rows[0], "again"))
        encrypt_column(table.column)
        assert opened(table.raw()[0]) == b"again"

    def test_with_allow_plaintext_he_may(self, make_table: Make) -> None:
        table = make_table(models.TextField())
        rows = table.save("a")
        table.state = encrypted(table, allow_plaintext=True)
        encrypt_column(table.column, lambda count: table.set_raw(rows[0], "again"))
        assert table.values() == ["again"]


def encrypted(table: Table, **options: Any) -> Any:
    """Return the state in which the column is encrypted, without having encrypted anything."""
    state = table.state.clone()
    EncryptField("thing", "secret", EncryptedTextField(**options)).state_forwards("moved", state)
    return state


class TestRefusals:
    @pytest.mark.skipif(VENDOR == "mysql", reason="it has no transactions of DDL, so no migration is atomic there")
    def test_an_atomic_migration(self, make_table: Make) -> None:
        table = make_table(models.TextField())
        table.save("x")
        with pytest.raises(NotSupportedError, match="set atomic = False on its migration"):
            table.migrate(EncryptField("thing", "secret", EncryptedTextField()), atomic=True)
        assert table.raw() == ["x"]

    @pytest.mark.parametrize(
        ("before", "after", "reason"),
        [
            (models.TextField(), EncryptedTextField(null=True), "name and null in a migration of their own"),
            (models.TextField(), EncryptedTextField(db_column="s"), "name and null in a migration of their own"),
            (models.IntegerField(), EncryptedTextField(), "IntegerField is no TextField, CharField or JSONField"),
            (models.TextField(), models.TextField(), "one of the two fields must be encrypted: neither is"),
            (EncryptedTextField(), EncryptedTextField(), "give it allow_plaintext=True, and run asherah_reencrypt"),
            (
                models.TextField(),
                EncryptedTextField(record_format="compact"),
                "must have record_format='json'",
            ),
        ],
        ids=["null", "column", "integer", "plain", "encrypted", "compact"],
    )
    def test_what_is_no_pair_of_fields(self, make_table: Make, before: Any, after: Any, reason: str) -> None:
        table = make_table(before)
        with pytest.raises((TypeError, ValueError), match=reason):
            table.encrypt(after)

    @pytest.mark.parametrize("kind", [models.TextField, models.CharField, models.JSONField])
    def test_a_field_that_makes_something_else_of_its_column(self, make_table: Make, kind: Any) -> None:
        class OtherLibrarysField(kind):
            def get_prep_value(self, value: Any) -> Any:
                return f"token {value[::-1]}"

            def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
                return value.removeprefix("token ")[::-1]

        table = make_table(EncryptedTextField() if kind is models.JSONField else OtherLibrarysField(max_length=50))
        table.save("x")
        before = table.raw()
        move = table.decrypt if kind is models.JSONField else table.encrypt
        with pytest.raises(TypeError, match="OtherLibrarysField makes something else of what its column holds"):
            move(OtherLibrarysField() if kind is models.JSONField else EncryptedTextField())
        assert table.raw() == before

    def test_a_field_that_only_checks_its_values_is_as_good_as_its_kind(self, make_table: Make) -> None:
        table = make_table(models.EmailField())
        table.save("a@example.com")
        table.encrypt(EncryptedTextField())
        assert table.values() == ["a@example.com"]

    def test_a_database_that_the_router_excludes_is_left_alone(self, make_table: Make, settings: Settings) -> None:
        table = make_table(models.TextField())
        table.save("x")
        settings.DATABASE_ROUTERS = ["tests.conversion.test_encrypt.NothingHere"]
        table.encrypt(EncryptedTextField())
        assert table.raw() == ["x"]
        assert isinstance(table.field, EncryptedFieldMixin)

    def test_an_unmanaged_model_is_left_alone(self, make_table: Make) -> None:
        table = make_table(models.TextField())
        table.save("x")
        table.state.models["moved", "thing"].options["managed"] = False
        table.state.reload_model("moved", "thing")
        table.encrypt(EncryptedTextField())
        assert table.raw() == ["x"]


class NothingHere:
    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return app_label != "moved"


class TestAsOperation:
    def test_it_says_what_it_does(self) -> None:
        assert EncryptField("Patient", "ssn", EncryptedTextField()).describe() == "Encrypt field ssn of Patient"
        assert DecryptField("Patient", "ssn", models.TextField()).migration_name_fragment == "decrypt_patient_ssn"

    def test_a_squash_does_not_lose_it(self) -> None:
        operations = [
            EncryptField("Patient", "ssn", EncryptedTextField(allow_plaintext=True)),
            AlterField("Patient", "ssn", EncryptedTextField()),
        ]
        assert MigrationOptimizer().optimize(operations, "clinic") == operations

    def test_sqlmigrate_shows_the_schema_and_writes_nothing(self, make_table: Make) -> None:
        table = make_table(models.CharField(max_length=5))
        table.save("x")
        after = table.state.clone()
        operation = EncryptField("thing", "secret", EncryptedTextField())
        operation.state_forwards("moved", after)
        with connections[table.alias].schema_editor(collect_sql=True, atomic=False) as editor:
            operation.database_forwards("moved", editor, table.state, after)
        assert editor.collected_sql[0] == "-- secret: its values are encrypted too, which is no SQL."
        assert any("text" in sql for sql in editor.collected_sql[1:])
        assert table.raw() == ["x"]

    def test_the_ledger_goes_once_the_migration_is_recorded(self, make_table: Make) -> None:
        table = make_table(models.TextField())
        table.save("x")
        before = table.state
        table.encrypt(EncryptedTextField())
        assert len(table.ledgers()) == 1
        tell(table, before, plan=[])  # Another migration was run after this one ended, and was not recorded.
        assert len(table.ledgers()) == 1
        tell(table, table.state)  # The flush command.
        assert len(table.ledgers()) == 1
        tell(table, table.state, plan=[])
        assert table.ledgers() == []

    def test_an_index_on_the_plain_field_goes(self, make_table: Make) -> None:
        table = make_table(models.CharField(max_length=50, unique=True))
        table.save("x")
        table.encrypt(EncryptedTextField())
        table.save("x")
        assert table.values() == ["x", "x"]
        with pytest.raises(IntegrityError):
            table.save(None)


def tell(table: Table, state: Any, **kwargs: Any) -> None:
    from django.apps import apps

    from django_asherah.operations import _drop_finished_ledgers

    _drop_finished_ledgers(sender=apps.get_app_config("django_asherah"), using=table.alias, apps=state.apps, **kwargs)


class DownKMS:
    def __init__(self, settings: Any) -> None:
        pass

    def encrypt_key(self, key: Any) -> bytes:
        raise KMSError("down")


def test_without_a_kms_nothing_changes(make_table: Make, settings: Settings) -> None:
    table = make_table(models.TextField())
    table.save("x")
    settings.ASHERAH = {
        "SERVICE": "suite",
        "PRODUCT": "tests",
        "DATABASE": table.alias,
        "KMS": "tests.conversion.test_encrypt.DownKMS",
    }
    with pytest.raises(KMSError, match="down"):
        table.encrypt(EncryptedTextField())
    assert table.raw() == ["x"]


class TestAuditLog:
    @pytest.fixture
    def lines(self, caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
        caplog.set_level(logging.INFO, "django_asherah.audit")
        return lambda: [text for text in caplog.messages if not text.startswith("created ")]

    def test_a_conversion_and_back(self, make_table: Make, alias: str, lines: Callable[[], list[str]]) -> None:
        table = make_table(models.TextField())
        table.save(*TEXTS)
        told: list[tuple[str, int, str]] = []

        def hear(signal: Any, values: int, by: str, **details: Any) -> None:
            told.append((details["column"], values, by))

        for signal in (signals.data_encrypted, signals.data_decrypted):
            signal.connect(hear)
        with audit.acting_as("me"):
            table.encrypt(EncryptedTextField())
            table.decrypt(models.TextField())
        where = f"column=moved.Thing.secret database={alias} values={len(TEXTS)} bad=0 by=me"
        assert lines() == [f"column_encrypted {where}", f"column_decrypted {where}"]  # And no value is refused.
        assert told == [("moved.Thing.secret", len(TEXTS), "me")] * 2

    def test_one_that_can_not_be_finished(self, make_table: Make, alias: str, lines: Callable[[], list[str]]) -> None:
        table = make_table(models.TextField())
        table.save("x", engine.get_session().encrypt(b"ambiguous"))
        with audit.acting_as("me"), pytest.raises(EncryptionError):
            table.encrypt(EncryptedTextField())
        where = f"column=moved.Thing.secret database={alias} values=1 bad=1 error=EncryptionError by=me"
        assert lines() == [f"column_encrypted {where}"]
