"""Columns that come later, expressions, and what is no matter of values."""

from __future__ import annotations

from typing import Any

import django
import pytest
from django.db import connection, models
from django.db.models import (
    Count,
    F,
    QuerySet,
    Value,
)
from django.db.models.sql import Query

from django_asherah.fields import EncryptedTextField
from tests.fields.test_lazy_reads import ROWS
from tests.fields.watching import is_sealed, sealed_names
from tests.testapp.models import Note, Patient

pytestmark = pytest.mark.django_db


class TestDeferred:
    @pytest.mark.parametrize(("model", "name", "value"), ROWS)
    def test_a_deferred_column_is_loaded_and_opened_when_it_is_read(self, model: Any, name: str, value: Any) -> None:
        model.objects.create(**{name: value})
        for row in (model.objects.defer(name).get(), model.objects.only("pk").get()):
            assert name not in vars(row)
            assert getattr(row, name) == value
            assert vars(row)[name] == value

    def test_a_deferred_plain_column_leaves_the_others_sealed(self) -> None:
        Note.objects.create(title="t", body="x")
        note = Note.objects.defer("title").get()
        assert (note.title, sealed_names(note)) == ("t", {"body", "other_body"})

    def test_a_deferred_value_of_a_row_that_is_gone_does_not_exist(self) -> None:
        Note.objects.create(body="x")
        note = Note.objects.defer("body").get()
        Note.objects.all().delete()
        with pytest.raises(Note.DoesNotExist):
            _ = note.body


class TestDeleted:
    """As Django's documentation says: an attribute that is deleted is loaded again."""

    @pytest.mark.parametrize(("model", "name", "value"), ROWS)
    def test_an_attribute_is_loaded_again(self, model: Any, name: str, value: Any) -> None:
        made = model.objects.create(**{name: value})
        read, opened = model.objects.get(), model.objects.get()
        assert getattr(opened, name) == value
        for row in (made, read, opened):
            delattr(row, name)
            assert row.get_deferred_fields() == {name}
            assert getattr(row, name) == value

    def test_what_is_deleted_is_not_saved(self) -> None:
        note = Note.objects.create(title="t", body="x")
        del note.body
        Note.objects.update(body="y")
        note.save()
        assert (note.body, Note.objects.get().body) == ("y", "y")

    def test_what_is_not_there_cannot_be_deleted(self) -> None:
        note = Note.objects.create(body="x")
        deferred = Note.objects.defer("body", "title").get(pk=note.pk)
        for name in ("title", "body"):
            with pytest.raises(AttributeError):
                delattr(deferred, name)


class TestRefreshed:
    @pytest.fixture
    def note(self) -> Note:
        return Note.objects.create(title="t", body="x", other_body="y")

    @pytest.mark.parametrize("fields", [None, ["body", "other_body"]])
    def test_an_instance_is_sealed_again(self, note: Note, fields: Any) -> None:
        note.body = "changed"
        note.refresh_from_db(fields=fields)
        assert sealed_names(note) == {"body", "other_body"}
        assert (note.body, note.other_body) == ("x", "y")

    def test_it_has_the_values_of_the_row(self, note: Note) -> None:
        note.body = "changed"
        Note.objects.update(other_body="z")
        note.refresh_from_db()
        assert (note.body, note.other_body) == ("x", "z")

    def test_a_plain_column_refreshed_leaves_the_others_as_they_are(self, note: Note) -> None:
        read = Note.objects.get()
        read.refresh_from_db(fields=["title"])
        assert sealed_names(read) == {"body", "other_body"}


class TestExpressions:
    def test_what_an_expression_made_of_a_column_is_read_after_save(self) -> None:
        note = Note.objects.create(body="x", other_body="y")
        note.body = F("other_body")
        note.save()
        if django.VERSION < (6,):
            note.refresh_from_db()
        elif connection.features.can_return_rows_from_update:
            assert is_sealed(note, "body")
        assert note.body == "y"
        assert Note.objects.get().body == "y"

    def test_what_an_expression_made_of_a_new_row_is_read_after_create(self) -> None:
        note = Note.objects.create(body=Value("x", output_field=EncryptedTextField()))
        if django.VERSION < (6,):
            note.refresh_from_db()
        elif connection.features.can_return_columns_from_insert:
            assert is_sealed(note, "body")
        assert note.body == "x"


class TestQueries:
    """What is no matter of values goes on as it was."""

    @pytest.fixture(autouse=True)
    def rows(self) -> None:
        Note.objects.bulk_create([Note(body="x"), Note(body=None)])

    def test_aggregates(self) -> None:
        rows = Note.objects.all()
        assert rows.aggregate(n=Count("body"), all=Count("pk")) == {"n": 1, "all": 2}
        assert rows.distinct().count() == rows.count() == len(rows) == 2
        assert rows.exists()
        assert rows.contains(rows[0])

    def test_explain(self) -> None:
        assert Note.objects.filter(body__isnull=False).explain()
        assert Note.objects.values("body").explain()

    def test_the_connections_own_compiler_stays_what_it_is(self) -> None:
        before = connection.ops.compiler("SQLCompiler")
        assert [note.body for note in Note.objects.order_by("pk")] == ["x", None]
        assert connection.ops.compiler("SQLCompiler") is before
        assert type(Note.objects.all().query.get_compiler("default")) is before

    def test_a_compiler_of_ones_own_is_used_on(self) -> None:
        ran: list[str] = []

        class OwnCompiler(connection.ops.compiler("SQLCompiler")):
            def results_iter(self, *args: Any, **kwargs: Any) -> Any:
                ran.append("results_iter")
                return super().results_iter(*args, **kwargs)

            def apply_converters(self, *args: Any) -> Any:
                ran.append("apply_converters")
                return super().apply_converters(*args)

        class OwnQuery(Query):
            def get_compiler(self, using: Any = None, connection: Any = None, elide_empty: bool = True) -> Any:
                usual = super().get_compiler(using, connection, elide_empty)
                return OwnCompiler(self, usual.connection, usual.using, elide_empty)

        rows: Any = QuerySet(Note, OwnQuery(Note)).order_by("pk")
        for _ in range(2):
            ran.clear()
            assert [row["body"] for row in rows.values("body")] == ["x", None]
            assert ran == ["results_iter", "apply_converters"]
            found = list(rows.all())
            assert "results_iter" in ran
            assert [is_sealed(found[0], "body"), found[0].body] == [True, "x"]

    def test_models_without_encrypted_columns_have_the_usual_compiler(self) -> None:
        plain: type[models.Model] = Patient._meta.get_field("clinic").related_model
        assert list(plain._default_manager.all()) == []
