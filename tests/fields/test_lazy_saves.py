"""What was not read is written back as it was found, at no cost; what was read may have been changed, and is not lost."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, connections, models, transaction
from django.db.models import F
from django.utils import timezone

from django_asherah import engine
from django_asherah.envelope.session import Session
from django_asherah.exceptions import EncryptionError
from tests.fields.helpers import opened, raw, set_raw
from tests.fields.test_types import NAMES, other
from tests.fields.watching import CountedSession, is_sealed, key_queries, sealed_names
from tests.testapp.models import Child, Clinic, Compact, Document, Note, Parent, Patient, Stamped, Typed

pytestmark = pytest.mark.django_db


def encrypted_names(model: type[models.Model]) -> list[str]:
    return [field.attname for field in model._meta.concrete_fields if type(field).__name__.startswith("Encrypted")]


def records(instance: models.Model) -> dict[str, Any]:
    """Return what the database holds of an instance's encrypted columns."""
    return {name: raw(instance, name) for name in encrypted_names(type(instance))}


def make_typed() -> None:
    Typed.objects.create(**{name: other(name) for name in NAMES})


def make_patient() -> None:
    Patient.objects.create(clinic=Clinic.objects.create(), ssn="1", history={"a": []}, scan=b"\0", remark="r")


ROWS: dict[Any, Callable[[], Any]] = {
    Note: lambda: Note.objects.create(title="t", body="x", other_body="y"),
    Document: lambda: Document.objects.create(doc={"a": [1]}, encoded=[2]),
    Compact: lambda: Compact.objects.create(body="x", doc=[1], apart="a", json_bytes="j", plain="p"),
    Typed: make_typed,
    Child: lambda: Child.objects.create(secret="s", child_secret="c"),
    Parent: lambda: Parent.objects.create(secret="s"),
    Patient: make_patient,
}


def _forget(row: models.Model) -> None:
    """Delete the row of each of its tables, and load nothing to do so."""
    for model in (type(row), *row._meta.all_parents):
        model._base_manager.all()._raw_delete("default")  # type: ignore[attr-defined]


def _inserted(row: models.Model) -> models.Model:
    _forget(row)
    row.save(force_insert=True)
    return row


def _copied(row: models.Model) -> models.Model:
    row.pk = None if isinstance(row._meta.pk, models.AutoField) else row._meta.pk.get_default()  # type: ignore[union-attr]
    row.id = None  # type: ignore[attr-defined]
    row._state.adding = True
    row.save()
    return row


def _bulk_created(row: models.Model) -> models.Model:
    _forget(row)
    return row.__class__._base_manager.bulk_create([row])[0]  # type: ignore[no-any-return]


def _after(save: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def write(row: models.Model) -> models.Model:
        save(row)
        return row

    return write


WRITES: dict[str, Callable[[Any], Any]] = {
    "save": _after(lambda row: row.save()),
    "two saves": _after(lambda row: (row.save(), row.save())),
    "force_update": _after(lambda row: row.save(force_update=True)),
    "update_fields": _after(lambda row: row.save(update_fields=encrypted_names(type(row)))),
    "force_insert": _inserted,
    "bulk_create": _bulk_created,
    "a copy's save": _after(lambda row: copy.copy(row).save()),
    "a deep copy's save": _after(lambda row: copy.deepcopy(row).save()),
    "an unpickled one's save": _after(lambda row: pickle.loads(pickle.dumps(row)).save()),
}


@pytest.fixture
def calls() -> Iterator[Any]:
    """Sessions that count their calls."""
    engine.use_session_type(CountedSession)
    CountedSession.calls.clear()
    yield CountedSession.calls
    engine.use_session_type(Session)


@pytest.mark.parametrize("model", ROWS)
@pytest.mark.parametrize("write", WRITES)
def test_what_was_not_read_is_written_back_byte_for_byte(model: Any, write: str, calls: Any) -> None:
    if model is Child and write == "bulk_create":
        pytest.skip("Django refuses to bulk_create multi-table models")
    ROWS[model]()
    row = model.objects.get()
    before, names = records(row), sealed_names(row)
    assert names == {name for name, record in before.items() if record is not None}
    calls.clear()
    row = WRITES[write](row)
    assert calls == {}
    assert records(row) == before
    assert sealed_names(row) == names
    assert calls == {}


@pytest.mark.parametrize("model", [Note, Document, Compact, Typed, Patient])
def test_a_copy_under_another_primary_key_holds_the_same_records(model: Any, calls: Any) -> None:
    ROWS[model]()
    before = records(model.objects.get())
    calls.clear()
    row = _copied(model.objects.get())
    assert calls == {}
    assert [records(each) for each in model.objects.order_by("pk")] == [before, before]
    assert model.objects.latest("pk") == row


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("model", ROWS)
def test_it_asks_for_no_key(model: Any) -> None:
    ROWS[model]()
    row, plain = model.objects.get(), model.objects.get()
    engine.get_factory().clear()
    assert key_queries(lambda: (row.save(), plain.save(update_fields=encrypted_names(model)))) == 0


@pytest.mark.django_db(transaction=True)
def test_conflicts_are_updated_with_the_same_record() -> None:
    ROWS[Note]()
    note = Note.objects.get()
    before = records(note)
    options: dict[str, Any] = {"update_conflicts": True, "update_fields": ["title", "body", "other_body"]}
    if connection.features.supports_update_conflicts_with_target:
        options["unique_fields"] = ["pk"]
    note.title = "new"
    engine.get_factory().clear()
    assert key_queries(lambda: Note.objects.bulk_create([note], **options)) == 0
    assert (records(note), Note.objects.get().title) == (before, "new")


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@pytest.mark.parametrize("model", [Note, Compact, Document])
def test_another_database_gets_the_same_records(model: Any) -> None:
    ROWS[model]()
    row = model.objects.get()
    row.save(using="other")
    for name, record in records(row).items():
        with connections["other"].cursor() as cursor:
            cursor.execute(f"SELECT {name} FROM {model._meta.db_table}")
            assert cursor.fetchone()[0] == record
    there = model.objects.using("other").get()
    there.save()
    assert sealed_names(there) == sealed_names(row) != set()
    name = encrypted_names(model)[0]
    assert getattr(there, name) == getattr(row, name)


@pytest.mark.parametrize("load", [lambda: Note.objects.defer("body").get(), lambda: Note.objects.only("title").get()])
def test_deferred_columns_are_not_written(load: Any) -> None:
    ROWS[Note]()
    before = records(Note.objects.get())
    note = load()
    note.title = "new"
    note.save()
    assert "body" not in vars(note)
    assert (records(note), Note.objects.get().title) == (before, "new")


def test_one_value_is_changed_and_the_others_keep_their_records(calls: Any) -> None:
    ROWS[Compact]()
    row = Compact.objects.get()
    before = records(row)
    row.body = row.body.upper()
    calls.clear()
    row.save()
    assert calls == {"seal": 1}
    after = records(row)
    assert {name for name in after if after[name] != before[name]} == {"body"}
    assert Compact.objects.get().body == "X"


def test_a_new_row_is_sealed_once(calls: Any) -> None:
    Note.objects.create(body="x", other_body="y")
    assert calls == {"seal": 2}


class TestWhatWasRead:
    """It may have been changed in place, and nobody has told."""

    def test_an_unchanged_value_stays(self) -> None:
        for model, make in ROWS.items():
            make()
            row = model.objects.get()
            values = {name: getattr(row, name) for name in encrypted_names(model)}
            row.save()
            again = model.objects.get()
            for saved in (again, row):  # As text, in which a NaN is itself.
                assert str({name: getattr(saved, name) for name in values}) == str(values)
            model.objects.all().delete()

    @pytest.mark.parametrize("model", [Document, Compact])
    def test_a_document_changed_in_place_is_saved(self, model: Any) -> None:
        model.objects.create(doc={"a": {"b": [1]}})
        row = model.objects.get()
        row.doc["a"]["b"].append(2)
        row.save()
        assert model.objects.get().doc == {"a": {"b": [1, 2]}}
        row.doc["a"]["b"].append(3)
        row.save(update_fields=["doc"])
        assert model.objects.get().doc == {"a": {"b": [1, 2, 3]}}
        row.doc["a"]["c"] = None
        row.save()
        assert model.objects.get().doc == row.doc == {"a": {"b": [1, 2, 3], "c": None}}

    def test_a_document_of_a_new_row_changed_in_place_is_saved(self) -> None:
        document = Document.objects.create(doc=[1])
        document.doc.append(2)
        document.save()
        assert Document.objects.get().doc == [1, 2]

    def test_a_document_changed_in_place_survives_a_save_that_failed(self) -> None:
        Document.objects.create(doc=[1])
        document = Document.objects.get()
        document.doc.append(2)
        document.encoded = float("nan")
        with pytest.raises(EncryptionError, match=r"testapp\.Document\.encoded"), transaction.atomic():
            document.save()
        assert document.doc == [1, 2]
        document.encoded = {}
        document.save()
        assert Document.objects.get().doc == [1, 2]

    def test_an_unread_value_survives_a_save_that_failed(self) -> None:
        Document.objects.create(doc=[1])
        document = Document.objects.get()
        before = records(document)
        document.encoded = float("nan")
        with pytest.raises(EncryptionError), transaction.atomic():
            document.save()
        assert is_sealed(document, "doc")
        document.encoded = {}
        document.save()
        assert raw(document, "doc") == before["doc"]

    def test_a_copys_document_is_its_own(self) -> None:
        Document.objects.create(doc=[1])
        document = Document.objects.get()
        other = copy.deepcopy(document)
        other.doc.append(2)
        assert (document.doc, other.doc) == ([1], [1, 2])

    @pytest.mark.parametrize("value", ["x", "new", "", None])
    def test_what_is_assigned_is_saved(self, value: Any) -> None:
        note = Note.objects.create(body="x", other_body="y")
        for read in (Note.objects.get(), Note.objects.only("pk").get()):
            read.body = value
            assert read.body == value
            read.save(update_fields=["body"])
            assert Note.objects.get().body == value
            assert (raw(note, "body") is None) is (value is None)
        assert Note.objects.get().other_body == "y"

    def test_an_expression_is_saved_beside_what_was_not_read(self) -> None:
        ROWS[Note]()
        note = Note.objects.get()
        before = raw(note, "other_body")
        note.body = F("other_body")
        note.save()
        assert (opened(note, "body"), raw(note, "other_body")) == (b"y", before)

    def test_bulk_update_writes_the_same_values(self) -> None:
        ROWS[Note]()
        note = Note.objects.get()
        Note.objects.bulk_update([note], ["body", "other_body"])
        again = Note.objects.get()
        assert (again.body, again.other_body) == ("x", "y")


class TestStamped:
    """Fields that Django fills."""

    def test_unread_they_are_filled_anew_or_kept(self) -> None:
        Stamped.objects.create()
        row = Stamped.objects.get()
        before, began = records(row), timezone.now()
        row.save()
        after = records(row)
        assert {name for name in after if after[name] != before[name]} == {"changed", "day"}
        assert sealed_names(row) == {"added", "hour"}
        assert began <= row.changed <= timezone.now()
        assert Stamped.objects.get().changed == row.changed

    def test_what_is_added_is_filled_in_a_copy(self) -> None:
        Stamped.objects.create()
        row = Stamped.objects.get()
        before, began = records(row), timezone.now()
        copied = _copied(row)
        assert copied.added >= began  # type: ignore[attr-defined]
        assert raw(copied, "added") != before["added"]
        assert raw(Stamped.objects.earliest("pk"), "added") == before["added"]


def test_what_stands_in_the_column_and_is_no_record_is_kept() -> None:
    ROWS[Note]()
    note = Note.objects.get()
    set_raw(note, "body", "no record at all")
    read = Note.objects.get()
    read.title = "new"
    read.save()
    assert raw(note, "body") == "no record at all"
