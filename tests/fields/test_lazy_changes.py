"""What was read or assigned may have changed, and is saved; what Django fills is filled."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import pytest
from django.core.exceptions import FieldError
from django.db import transaction
from django.db.models import Case, F, Value, When
from django.utils import timezone

from django_asherah.exceptions import AsherahError, EncryptionError
from tests.fields.helpers import opened, raw
from tests.fields.rows import MAKES, copied, encrypted_names, records
from tests.fields.watching import is_sealed, sealed_names
from tests.testapp.models import Compact, Document, Note, Stamped

pytestmark = pytest.mark.django_db


class TestWhatWasRead:
    """It may have been changed in place, and nobody has told."""

    def test_an_unchanged_value_stays(self) -> None:
        for model, make in MAKES.items():
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
        MAKES[Note]()
        note = Note.objects.get()
        before = raw(note, "other_body")
        note.body = F("other_body")
        note.save()
        assert (opened(note, "body"), raw(note, "other_body")) == (b"y", before)

    def test_bulk_update_writes_the_same_values(self) -> None:
        MAKES[Note]()
        note = Note.objects.get()
        Note.objects.bulk_update([note], ["body", "other_body"])
        again = Note.objects.get()
        assert (again.body, again.other_body) == ("x", "y")


class TestTakenOut:
    """What an instance holds unread, taken out of its ``__dict__`` or of what ``from_db()`` was given."""

    @pytest.fixture
    def sealed(self) -> Any:
        MAKES[Note]()
        return vars(Note.objects.get())["other_body"]

    def test_it_is_assigned(self, sealed: Any) -> None:
        note = Note.objects.get()
        note.body = sealed
        note.save()
        assert (note.body, Note.objects.get().body) == ("y", "y")

    def test_it_makes_another_instance(self, sealed: Any) -> None:
        note = Note.objects.create(body=sealed)
        assert (note.body, Note.objects.get(pk=note.pk).body) == ("y", "y")

    @pytest.mark.parametrize("model", [Note, Compact])
    @pytest.mark.parametrize(
        "write",
        [
            lambda rows, sealed: rows.update(body=sealed),
            lambda rows, sealed: rows.update(body=Value(sealed, output_field=rows.model._meta.get_field("body"))),
            lambda rows, sealed: rows.update(
                body=Case(When(pk__gt=0, then=Value(sealed, rows.model._meta.get_field("body"))))
            ),
        ],
    )
    def test_its_value_is_written_or_nothing_is(self, write: Any, model: Any, sealed: Any) -> None:
        rows = model.objects.filter(pk=model.objects.create(body="x").pk)
        with suppress(AsherahError, FieldError, TypeError):
            write(rows, sealed)
        assert rows.get().body in ("x", "y")


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
        twin = copied(row)
        assert twin.added >= began
        assert raw(twin, "added") != before["added"]
        assert raw(Stamped.objects.earliest("pk"), "added") == before["added"]
