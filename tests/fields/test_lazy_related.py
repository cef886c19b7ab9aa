"""Rows of related tables, and rows that several tables make up: each holds records until its own attribute is read."""

from __future__ import annotations

from typing import Any

import pytest
from django.db.models import (
    F,
    FilteredRelation,
    OuterRef,
    Prefetch,
    Q,
    Subquery,
)

from tests.fields.watching import is_sealed, sealed_names
from tests.testapp.models import Child, Note, Parent, ParentProxy, Patient, Visit

pytestmark = pytest.mark.django_db


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

    def test_a_parent_that_is_made_of_its_child_is_sealed(self) -> None:
        child = Child.objects.get()
        assert (sealed_names(child.parent_ptr), sealed_names(child)) == ({"secret"}, {"secret", "child_secret"})

    def test_a_parent_that_is_made_of_its_child_has_its_values(self) -> None:
        assert Child.objects.get().parent_ptr.secret == "s"
        assert Child.objects.select_related("parent_ptr").get().parent_ptr.secret == "s"

    def test_a_parent_without_a_child(self) -> None:
        alone = Parent.objects.create(secret="alone")
        parent = Parent.objects.select_related("child").get(pk=alone.pk)
        assert (sealed_names(parent), parent.secret) == ({"secret"}, "alone")
        with pytest.raises(Child.DoesNotExist):
            _ = parent.child

    def test_a_proxy(self) -> None:
        proxy = ParentProxy.objects.get()
        assert (sealed_names(proxy), proxy.secret) == ({"secret"}, "s")

    @pytest.mark.parametrize("name", ["secret", "child_secret"])
    def test_deferred_columns_of_either_table(self, name: str) -> None:
        child = Child.objects.defer(name).get()
        assert name not in vars(child)
        assert getattr(child, name) == name[0]
        assert is_sealed(child, ({"secret", "child_secret"} - {name}).pop())
