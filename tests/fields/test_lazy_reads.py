"""Whatever loads an instance, it holds records until an attribute is read; whatever loads values, they are opened."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterable
from typing import Any

import django
import pytest
from django.db import connection, models
from django.db.models import (
    Case,
    Count,
    Exists,
    F,
    FilteredRelation,
    OuterRef,
    Prefetch,
    Q,
    QuerySet,
    Subquery,
    Value,
    When,
    Window,
)
from django.db.models.functions import Coalesce, RowNumber
from django.db.models.sql import Query

from django_asherah.fields import EncryptedTextField
from tests.fields.test_types import NAMES, other, same
from tests.fields.watching import is_sealed, sealed_names
from tests.testapp.models import Child, Compact, Document, Note, Parent, ParentProxy, Patient, Typed, Visit

pytestmark = pytest.mark.django_db

Objects = Any

ROWS: list[Any] = [
    pytest.param(Note, "body", "text", id="text"),
    pytest.param(Document, "doc", {"a": [1, None]}, id="document"),
    pytest.param(Compact, "body", "text", id="compact"),
    pytest.param(Compact, "doc", {"a": [1, None]}, id="compact document"),
    pytest.param(Compact, "json_bytes", "text", id="JSON in bytes"),
]


def _table(objects: Objects) -> str:
    return str(objects.model._meta.db_table)


def _after_values(objects: Objects, name: str) -> Iterable[Any]:
    rows = objects.all()
    assert list(rows.values(name)) == list(rows.values(name))
    return rows


def _again_after_values(objects: Objects, name: str) -> Iterable[Any]:
    rows = objects.all()
    assert [is_sealed(row, name) for row in rows] == [True]
    assert list(rows.values_list(name, flat=True)) == [getattr(row, name) for row in rows]
    return rows.all()


def _with_a_query_from_a_pickle(objects: Objects, name: str) -> Iterable[Any]:
    rows = objects.all()
    rows.query = pickle.loads(pickle.dumps(objects.filter(pk__gt=0).query))
    return rows


READS: dict[str, Callable[[Objects, str], Iterable[Any]]] = {
    "all": lambda objects, name: objects.all(),
    "get": lambda objects, name: [objects.get()],
    "first": lambda objects, name: [objects.first()],
    "last": lambda objects, name: [objects.order_by("pk").last()],
    "latest": lambda objects, name: [objects.latest("pk")],
    "earliest": lambda objects, name: [objects.earliest("pk")],
    "an index": lambda objects, name: [objects.order_by("pk")[0]],
    "a slice": lambda objects, name: objects.order_by("pk")[:5],
    "a slice with steps": lambda objects, name: objects.order_by("pk")[:5:2],
    "iterator": lambda objects, name: objects.iterator(),
    "iterator in chunks": lambda objects, name: objects.iterator(chunk_size=1),
    "in_bulk": lambda objects, name: objects.in_bulk().values(),
    "only": lambda objects, name: objects.only(name),
    "defer of nothing": lambda objects, name: objects.defer(name).defer(None),
    "raw": lambda objects, name: objects.raw(f"SELECT * FROM {_table(objects)}"),
    "union": lambda objects, name: objects.filter(pk__gt=0).union(objects.filter(pk__lt=0)),
    "union of all": lambda objects, name: objects.filter(pk__gt=0).union(objects.filter(pk__lt=0), all=True),
    "union with nothing": lambda objects, name: objects.none().union(objects.all()),
    "or": lambda objects, name: objects.filter(pk__gt=0) | objects.filter(pk__lt=0),
    "and": lambda objects, name: objects.filter(pk__gt=0) & objects.exclude(pk__lt=0),
    "distinct": lambda objects, name: objects.distinct(),
    "exclude": lambda objects, name: objects.exclude(**{f"{name}__isnull": True}),
    "extra": lambda objects, name: objects.extra(select={"one": "1"}),
    "get_or_create": lambda objects, name: [objects.get_or_create(pk__gt=0)[0]],
    "update_or_create": lambda objects, name: [objects.update_or_create(pk__gt=0, defaults={})[0]],
    "an annotation of the column": lambda objects, name: objects.annotate(copy=F(name)),
    "an alias of the column": lambda objects, name: objects.alias(copy=F(name)).filter(copy__isnull=False),
    "a count": lambda objects, name: objects.annotate(n=Count("pk")),
    "a window": lambda objects, name: objects.annotate(n=Window(RowNumber())),
    "a filtered window": lambda objects, name: objects.annotate(n=Window(RowNumber())).filter(n=1),
    "exists": lambda objects, name: objects.filter(Exists(objects.filter(pk=OuterRef("pk")).values(name))),
    "in a subquery": lambda objects, name: objects.filter(pk__in=objects.filter(**{f"{name}__isnull": False})),
    "values before": _after_values,
    "values in between": _again_after_values,
    "a query from a pickle": _with_a_query_from_a_pickle,
    "a deep copy": lambda objects, name: copy.deepcopy(objects.filter(pk__gt=0)),
    "a row locked": lambda objects, name: objects.select_for_update(),
}


@pytest.mark.parametrize(("model", "name", "value"), ROWS)
@pytest.mark.parametrize("read", READS)
def test_an_instance_is_sealed_until_its_attribute_is_read(read: str, model: Any, name: str, value: Any) -> None:
    model.objects.create(**{name: value})
    (row,) = READS[read](model.objects, name)
    assert is_sealed(row, name)
    assert getattr(row, name) == value
    assert vars(row)[name] == value
    assert getattr(row, name) is vars(row)[name]
    assert getattr(row, "copy", value) == value


@pytest.mark.parametrize("name", NAMES)
def test_every_type_is_sealed_until_it_is_read(name: str) -> None:
    Typed.objects.create(**{name: other(name)})
    row = Typed.objects.get()
    assert sealed_names(row) == set(NAMES)
    assert same(getattr(row, name), other(name))
    assert sealed_names(row) == set(NAMES) - {name}
    assert getattr(row, f"{name}_or_none") is None


def test_none_rows_are_none() -> None:
    Note.objects.create(body="x")
    assert list(Note.objects.none()) == []
    assert list(Note.objects.none().values("body")) == []


VALUES: dict[str, Callable[[Objects, str], list[Any]]] = {
    "values": lambda objects, name: [row[name] for row in objects.values(name)],
    "values of all": lambda objects, name: [row[name] for row in objects.values()],
    "values_list": lambda objects, name: [row[1] for row in objects.values_list("pk", name)],
    "flat": lambda objects, name: list(objects.values_list(name, flat=True)),
    "named": lambda objects, name: [getattr(row, name) for row in objects.values_list(name, named=True)],
    "an expression": lambda objects, name: list(objects.values_list(F(name), flat=True)),
    "after a model's rows": lambda objects, name: [row[name] for row in _evaluated(objects.all()).values(name)],
    "a union": lambda objects, name: list(
        objects.filter(pk__gt=0).values_list(name, flat=True).union(objects.filter(pk__lt=0).values_list(name))
    ),
    "an annotation": lambda objects, name: [row.copy for row in objects.annotate(copy=F(name))],
    "two of one column": lambda objects, name: [row.b for row in objects.annotate(a=F(name), b=F(name))],
    "an annotation's values": lambda objects, name: [row["c"] for row in objects.annotate(c=F(name)).values("c")],
    "a subquery": lambda objects, name: [
        row.copy
        for row in objects.annotate(copy=Subquery(objects.filter(pk=OuterRef("pk")).values(name)[:1]))
    ],
    "a case": lambda objects, name: [row.copy for row in objects.annotate(copy=Case(When(pk__gt=0, then=F(name))))],
    "only the annotation": lambda objects, name: [row.copy for row in objects.only("pk").annotate(copy=F(name))],
    "an iterator": lambda objects, name: [row[name] for row in objects.values(name).iterator()],
}  # fmt: skip


def _evaluated(rows: QuerySet[Any]) -> QuerySet[Any]:
    assert len(rows) == 1
    return rows


@pytest.mark.parametrize(("model", "name", "value"), ROWS)
@pytest.mark.parametrize("read", VALUES)
def test_what_is_no_instance_is_opened(read: str, model: Any, name: str, value: Any) -> None:
    model.objects.create(**{name: value})
    assert VALUES[read](model.objects, name) == [value]


def test_coalesce_is_opened_beside_sealed_columns() -> None:
    Note.objects.create(body=None, other_body="other")
    row = Note.objects.annotate(c=Coalesce("body", "other_body")).get()
    assert (row.c, sealed_names(row)) == ("other", {"other_body"})


class TestRelations:
    @pytest.fixture
    def visit(self) -> Visit:
        return Visit.objects.create(note=Note.objects.create(title="t", body="text"), remark="remark")

    def check(self, visit: Visit, note: Note) -> None:
        for instance, name, value in ((visit, "remark", "remark"), (note, "body", "text")):
            assert is_sealed(instance, name)
            assert getattr(instance, name) == value

    def test_forward(self, visit: Visit) -> None:
        read = Visit.objects.get()
        self.check(read, read.note)

    def test_select_related(self, visit: Visit) -> None:
        read = Visit.objects.select_related("note").get()
        assert is_sealed(read.note, "body")
        assert is_sealed(read, "remark")
        self.check(read, read.note)

    def test_select_related_of_some_columns(self, visit: Visit) -> None:
        read = Visit.objects.select_related("note").only("remark", "note__body").get()
        assert read.note.get_deferred_fields() == {"title", "other_body"}
        self.check(read, read.note)

    def test_select_related_beside_an_annotation_of_the_same_column(self, visit: Visit) -> None:
        read = Visit.objects.select_related("note").annotate(copy=F("note__body")).get()
        assert (read.copy, is_sealed(read.note, "body")) == ("text", True)
        self.check(read, read.note)

    def test_filtered_relations(self, visit: Visit) -> None:
        Visit.objects.create(note=visit.note, remark=None)
        relation = FilteredRelation("visits", condition=Q(visits__remark__isnull=False))
        note = Note.objects.annotate(told=relation).filter(told__isnull=False).annotate(copy=F("told__remark")).get()
        assert (note.copy, is_sealed(note, "body"), note.body) == ("remark", True, "text")
        read = Visit.objects.annotate(of=FilteredRelation("note")).select_related("of").get(pk=visit.pk)
        self.check(read, read.of)

    def test_reverse_managers(self, visit: Visit) -> None:
        note = Note.objects.get()
        self.check(note.visits.get(), note)
        self.check(note.visits.select_related("note").get(), Note.objects.get())

    @pytest.mark.parametrize("lookup", ["visits", Prefetch("visits", Visit.objects.select_related("note"))])
    def test_prefetched(self, visit: Visit, lookup: Any) -> None:
        note = Note.objects.prefetch_related(lookup).get()
        self.check(note.visits.all()[0], note)

    def test_prefetched_forward(self, visit: Visit) -> None:
        read = Visit.objects.prefetch_related("note").get()
        self.check(read, read.note)

    def test_related_annotations_are_opened(self, visit: Visit) -> None:
        last = Visit.objects.filter(note=OuterRef("pk")).values("remark")[:1]
        note = Note.objects.annotate(last=Subquery(last), any=F("visits__remark")).get()
        assert (note.last, note.any, is_sealed(note, "body")) == ("remark", "remark", True)
        assert list(Visit.objects.values_list("note__body", "remark")) == [("text", "remark")]

    def test_whose_partition_the_row_says(self) -> None:
        clinic = Patient._meta.get_field("clinic").related_model.objects.create()
        Patient.objects.create(clinic=clinic, ssn="1", history=[1], scan=b"s", remark="r")
        patient = Patient.objects.select_related("clinic").get()
        assert sealed_names(patient) == {"ssn", "history", "scan", "remark"}
        assert (patient.ssn, patient.history, patient.scan, patient.remark) == ("1", [1], b"s", "r")


class TestInheritance:
    @pytest.fixture(autouse=True)
    def child(self) -> Child:
        return Child.objects.create(secret="s", child_secret="c")

    def test_a_child_has_the_columns_of_two_tables(self) -> None:
        child = Child.objects.get()
        assert sealed_names(child) == {"secret", "child_secret"}
        assert (child.secret, child.child_secret) == ("s", "c")

    def test_a_child_that_is_loaded_from_its_parent(self) -> None:
        for parent in (Parent.objects.get(), Parent.objects.select_related("child").get()):
            assert sealed_names(parent) == {"secret"}
            assert sealed_names(parent.child) == {"secret", "child_secret"}
            assert (parent.secret, parent.child.secret, parent.child.child_secret) == ("s", "s", "c")

    @pytest.mark.xfail(
        strict=True, reason="Django makes the parent of what getattr() gives of the child, and so opens it"
    )
    def test_a_parent_that_is_made_of_its_child_is_sealed(self) -> None:
        child = Child.objects.get()
        assert (sealed_names(child.parent_ptr), sealed_names(child)) == ({"secret"}, {"secret", "child_secret"})

    def test_a_parent_that_is_made_of_its_child_has_its_values(self) -> None:
        assert Child.objects.get().parent_ptr.secret == "s"
        assert Child.objects.select_related("parent_ptr").get().parent_ptr.secret == "s"

    def test_a_proxy(self) -> None:
        proxy = ParentProxy.objects.get()
        assert (sealed_names(proxy), proxy.secret) == ({"secret"}, "s")

    @pytest.mark.parametrize("name", ["secret", "child_secret"])
    def test_deferred_columns_of_either_table(self, name: str) -> None:
        child = Child.objects.defer(name).get()
        assert name not in vars(child)
        assert getattr(child, name) == name[0]
        assert is_sealed(child, ({"secret", "child_secret"} - {name}).pop())


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


class TestRefreshed:
    LAZY = pytest.mark.xfail(
        strict=True, reason="Model.refresh_from_db() copies values by getattr(), and so opens all of them"
    )

    @pytest.fixture
    def note(self) -> Note:
        return Note.objects.create(title="t", body="x", other_body="y")

    @LAZY
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

        class OwnCompiler(connection.ops.compiler("SQLCompiler")):  # type: ignore[misc]
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
