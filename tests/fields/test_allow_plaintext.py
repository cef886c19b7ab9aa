"""``allow_plaintext``: what is not encrypted yet is read, what is damaged is not, and every write encrypts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import FieldError
from django.core.management import call_command
from django.db import connection
from django.db.models import F, Value
from django.db.models.functions import Coalesce

from django_asherah import engine, lifecycle
from django_asherah.exceptions import DecryptionError, InvalidRecordError, PartitionMismatchError
from django_asherah.fields import EncryptedBinaryField, EncryptedJSONField, EncryptedTextField
from tests.fields.helpers import opened, set_raw
from tests.testapp.models import Document, Note, Tenancy

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _lenient() -> Iterator[None]:
    fields: list[Any] = [Note._meta.get_field("body"), Document._meta.get_field("doc")]
    for field in fields:
        field.allow_plaintext = True
    yield
    for field in fields:
        field.allow_plaintext = False


def read(value: str) -> Any:
    note = Note.objects.create()
    set_raw(note, "body", value)
    return Note.objects.get(pk=note.pk).body


def record(payload: bytes = b"sealed", partition: str | None = None) -> str:
    return engine.get_session(partition).encrypt(payload)


class TestText:
    @pytest.mark.parametrize(
        "value",
        ["", " ", "x", "null", "Zoë 🩺", "{", '{"Key": "value"}', '{"key":{', '{"Data": "x"}', "Key", "ParentKeyMeta"],
    )
    def test_a_value_that_is_not_encrypted_yet_is_read_as_it_is(self, value: str) -> None:
        assert read(value) == value

    def test_a_record_is_opened(self) -> None:
        assert read(record("Zoë".encode())) == "Zoë"

    def test_null_is_none(self) -> None:
        assert Note.objects.get(pk=Note.objects.create(body=None).pk).body is None

    def test_a_record_with_its_members_in_the_other_order_is_opened(self) -> None:
        members = json.loads(record())
        other = json.dumps(dict(reversed(members.items())), separators=(",", ":"))
        assert other.startswith('{"Data":"')
        assert read(other) == "sealed"

    def test_a_record_that_was_reformatted_is_opened(self) -> None:
        assert read(json.dumps(json.loads(record()), indent=2)) == "sealed"

    @pytest.mark.parametrize("length", [8, 20, 100, 200, -100, -40, -2, -1])
    def test_what_is_left_of_a_truncated_record_is_an_error(self, length: int) -> None:
        with pytest.raises(InvalidRecordError):
            read(record()[:length])

    @pytest.mark.parametrize("length", [10, 100, 200, -2])
    def test_in_the_other_order_too(self, length: int) -> None:
        members = json.loads(record())
        other = json.dumps(dict(reversed(members.items())), separators=(",", ":"))
        with pytest.raises(InvalidRecordError):
            read(other[:length])

    @pytest.mark.parametrize("place", [0, 1, 3, 7, 40, 120, 200])
    def test_a_record_with_one_flipped_bit_is_never_text(self, place: int) -> None:
        text = record()
        flipped = text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1 :]
        try:
            value = read(flipped)
        except DecryptionError:
            return
        assert value == "sealed"  # The creation time of the data row key, say, decides nothing.

    def test_a_record_behind_something_else_is_an_error(self) -> None:
        with pytest.raises(InvalidRecordError):
            read("x" + record())

    def test_a_record_of_another_partition_is_an_error(self) -> None:
        with pytest.raises(PartitionMismatchError):
            read(record(partition="elsewhere"))


class TestJSON:
    def read(self, value: str) -> Any:
        document = Document.objects.create()
        set_raw(document, "doc", value)
        return Document.objects.get(pk=document.pk).doc

    @pytest.mark.parametrize("value", [{"a": [1, None]}, [], "text", 0, None, {"Key": {"a": 1}}, {"Data": "x"}])
    def test_a_document_that_is_not_encrypted_yet_is_read(self, value: Any) -> None:
        assert self.read(json.dumps(value)) == value

    def test_a_record_is_opened(self) -> None:
        assert self.read(record(b'{"a":1}')) == {"a": 1}

    @pytest.mark.parametrize("value", ["", "x", '{"a"', "NaN,"])
    def test_what_is_neither_is_an_error_that_does_not_show_it(self, value: str) -> None:
        with pytest.raises(
            InvalidRecordError, match=r"testapp\.Document\.doc pk=\d+: it is neither a record nor"
        ) as caught:
            self.read(value)
        assert caught.value.__context__ is None


class TestBytes:
    def bound(self, **options: Any) -> Any:
        field: Any = EncryptedBinaryField(allow_plaintext=True, **options)
        field.set_attributes_from_name("body")
        field.model = Note
        return field

    @pytest.mark.parametrize("value", [b"", b"\x89PNG", b"\t", b"{", b"\xff\x00"])
    def test_those_of_a_binary_column_that_are_not_encrypted_yet_are_read(self, value: bytes) -> None:
        assert self.bound(record_format="compact").value_of(value) == value

    @pytest.mark.parametrize("value", [b"\x00", b"\x08 BMP"])
    def test_those_that_begin_as_a_compact_record_does_are_taken_for_one(self, value: bytes) -> None:
        with pytest.raises(InvalidRecordError, match="not a compact record"):
            self.bound(record_format="compact").value_of(value)

    def test_those_that_a_database_made_text_of_are_refused(self) -> None:
        with pytest.raises(InvalidRecordError, match=r"can't become a text column: use record_format='compact'"):
            self.bound().value_of("\\x89504e47")


class TestWrites:
    def test_saving_encrypts(self) -> None:
        note = Note.objects.create(body="x")
        assert opened(note, "body") == b"x"

    def test_what_was_read_in_plain_is_encrypted_by_the_next_save(self) -> None:
        note = Note.objects.create()
        set_raw(note, "body", "not yet")
        Note.objects.get(pk=note.pk).save()
        assert opened(note, "body") == b"not yet"

    def test_update_and_bulk_update_encrypt(self) -> None:
        note = Note.objects.create()
        Note.objects.update(body="one")
        assert opened(note, "body") == b"one"
        note.body = "two"
        Note.objects.bulk_update([note], ["body"])
        assert opened(note, "body") == b"two"

    def test_a_column_that_may_hold_plaintext_is_not_copied_by_the_database(self) -> None:
        Note.objects.create()
        for source in (F("body"), Coalesce(F("body"), Value("", EncryptedTextField()))):
            with pytest.raises(FieldError, match="without allow_plaintext"):
                Note.objects.update(other_body=source)

    def test_a_column_of_records_is_copied_into_it(self) -> None:
        note = Note.objects.create(other_body="x")
        Note.objects.update(body=F("other_body"))
        assert opened(note, "body") == b"x"


class TestWhatIsLeft:
    def test_verify_counts_it_and_names_what_is_no_value(self) -> None:
        notes, bad = [Note.objects.create() for _ in range(3)], Document.objects.create()
        for note in notes[:2]:
            set_raw(note, "body", "not yet")
        set_raw(notes[2], "body", record()[:-5])
        set_raw(bad, "doc", "not JSON")
        report = lifecycle.verify_data(["testapp.Note.body", "testapp.Document.doc"])
        assert report.plaintext == {"testapp.Note.body": 2}
        assert [(value.column, value.pk) for value in report.bad] == [
            ("testapp.Note.body", str(notes[2].pk)),
            ("testapp.Document.doc", str(bad.pk)),
        ]

    def test_reencrypt_encrypts_it_exactly_as_it_stands(self) -> None:
        note, document = Note.objects.create(), Document.objects.create()
        set_raw(note, "body", "not yet")
        set_raw(document, "doc", '{"n": 1.2345678901234567890123}')
        report = lifecycle.reencrypt(["testapp.Note.body", "testapp.Document.doc"])
        assert report.rewritten == {"testapp.Note.body": 1, "testapp.Document.doc": 1}
        assert opened(note, "body") == b"not yet"
        assert opened(document, "doc") == b'{"n": 1.2345678901234567890123}'
        assert lifecycle.verify_data(["testapp.Note.body", "testapp.Document.doc"]).plaintext == {}

    def test_a_check_warns_while_it_is_on(self) -> None:
        [warning] = Note._meta.get_field("body").check()
        assert (warning.id, warning.is_serious()) == ("asherah.W105", False)
        assert "allow_plaintext is on" in warning.msg
        assert "asherah_verify --data" in str(warning.hint)

    def test_off_it_is_an_error_again(self) -> None:
        row = Tenancy.objects.create(left="x")
        set_raw(row, "left", "never encrypted")
        row = Tenancy.objects.get(pk=row.pk)
        with pytest.raises(InvalidRecordError) as caught:
            _ = row.left
        assert str(caught.value).startswith(f"testapp.Tenancy.left pk={row.pk}: not a data row record: ")
        assert str(caught.value).endswith(": it was never encrypted, or is damaged")


class TestMigrations:
    def test_it_is_written_only_if_given(self) -> None:
        assert EncryptedTextField(allow_plaintext=True).deconstruct()[3] == {"allow_plaintext": True}
        assert "allow_plaintext" not in EncryptedJSONField().deconstruct()[3]

    @pytest.mark.django_db(transaction=True)
    def test_switching_it_or_the_partition_leaves_the_table_alone(self) -> None:
        with connection.schema_editor(collect_sql=True) as editor:
            old, new = Note._meta.get_field("body"), EncryptedTextField(null=True, partition="p")
            new.set_attributes_from_name("body")
            editor.alter_field(Note, old, new)
        assert editor.collected_sql == []


def test_people_are_told_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    set_raw(Note.objects.create(), "body", "not yet")
    call_command("asherah_verify", "--data", "testapp.Note.body")
    assert "testapp.Note.body: 1 values are not encrypted yet." in capsys.readouterr().out
