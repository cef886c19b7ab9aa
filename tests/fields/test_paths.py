"""Every way Django writes and reads a value: ``django.md``'s table, line by line."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core import serializers
from django.db.models import Case, Count, Exists, F, IntegerField, Max, OuterRef, Q, Subquery, Value, When
from django.db.models.functions import Cast, Coalesce, Length, Upper

from django_asherah.fields import EncryptedTextField
from tests.fields.helpers import opened, raw
from tests.testapp.models import Child, Document, Note, Parent, ParentProxy, Tenancy, Visit

pytestmark = pytest.mark.django_db


class TestWrites:
    """Whatever writes, the column holds a record of the value."""

    def test_save_and_save_again(self) -> None:
        note = Note(body="one")
        note.save()
        note.body = "two"
        note.save()
        note.save(update_fields=["title"])
        assert opened(note, "body") == b"two"
        assert note.body == "two"

    def test_bulk_create(self) -> None:
        notes = Note.objects.bulk_create([Note(body=str(n)) for n in range(50)])
        assert [opened(note, "body") for note in Note.objects.order_by("pk")] == [str(n).encode() for n in range(50)]
        assert notes[7].body == "7"

    def test_bulk_create_with_conflicts(self) -> None:
        note = Note.objects.create(body="old")
        options: dict[str, Any] = {"update_conflicts": True, "update_fields": ["body"]}
        from django.db import connection

        if connection.features.supports_update_conflicts_with_target:
            options["unique_fields"] = ["pk"]
        Note.objects.bulk_create([Note(pk=note.pk, body="new")], **options)
        assert opened(note, "body") == b"new"

    def test_bulk_update(self) -> None:
        notes = [Note.objects.create(body=str(n)) for n in range(5)]
        for note in notes:
            note.body = f"new {note.body}"
        notes[4].body = None
        Note.objects.bulk_update(notes, ["body"])
        assert [opened(note, "body") for note in notes[:4]] == [f"new {n}".encode() for n in range(4)]
        assert raw(notes[4], "body") is None

    def test_bulk_update_of_documents(self) -> None:
        documents = [Document.objects.create(doc={"n": n}) for n in range(3)]
        for document in documents:
            document.doc["n"] += 10
        Document.objects.bulk_update(documents, ["doc"])
        assert [document.doc for document in Document.objects.order_by("pk")] == [{"n": n + 10} for n in range(3)]

    def test_update_with_a_value(self) -> None:
        note = Note.objects.create(body="one")
        Note.objects.update(body="two")
        assert opened(note, "body") == b"two"
        Note.objects.update(body=None)
        assert raw(note, "body") is None

    def test_update_with_another_encrypted_column(self) -> None:
        note = Note.objects.create(body="one", other_body="two")
        Note.objects.update(body=F("other_body"))
        note.refresh_from_db()
        assert note.body == "two"

    def test_update_with_what_certainly_yields_records(self) -> None:
        note = Note.objects.create(body=None, other_body="two")
        Note.objects.update(body=Value("three", output_field=EncryptedTextField()))
        assert opened(note, "body") == b"three"
        Note.objects.update(body=Coalesce("body", "other_body"))
        assert opened(note, "body") == b"three"
        Note.objects.update(body=Case(When(pk=note.pk, then=F("other_body")), default=F("body")))
        assert opened(note, "body") == b"two"

    def test_create_with_an_encrypting_value(self) -> None:
        note = Note.objects.create(body=Value("x", output_field=EncryptedTextField()))
        assert opened(note, "body") == b"x"

    def test_get_or_create_and_update_or_create(self) -> None:
        note, made = Note.objects.get_or_create(title="t", defaults={"body": "one"})
        assert (made, opened(note, "body")) == (True, b"one")
        note, made = Note.objects.update_or_create(title="t", defaults={"body": "two"})
        assert (made, opened(note, "body")) == (False, b"two")

    def test_async(self) -> None:
        async def work() -> list[Any]:
            await Note.objects.acreate(title="async", body="x")
            note = await Note.objects.aget(title="async")
            note.body = "y"
            await note.asave()
            await Note.objects.aupdate(other_body="z")
            return [(n.body, n.other_body) async for n in Note.objects.all()]

        assert async_to_sync(work)() == [("y", "z")]

    def test_inherited_models(self) -> None:
        child = Child.objects.create(secret="s", child_secret="c")
        assert opened(child.parent_ptr, "secret") == b"s"
        read = Child.objects.get(pk=child.pk)
        assert (read.secret, read.child_secret) == ("s", "c")
        assert ParentProxy.objects.get().secret == Parent.objects.get().secret == "s"

    def test_fixtures_round_trip_through_plaintext(self) -> None:
        Note.objects.create(body="x", other_body="y")
        Document.objects.create(doc={"a": 1})
        dumped = serializers.serialize("json", [*Note.objects.all(), *Document.objects.all()])
        Note.objects.all().delete()
        Document.objects.all().delete()
        for item in serializers.deserialize("json", dumped):
            item.save()
        assert opened(Note.objects.get(), "body") == b"x"
        assert Document.objects.get().doc == {"a": 1}

    def test_update_with_a_cast_to_the_same_kind(self) -> None:
        note = Note.objects.create(body="old", other_body="new")
        Note.objects.update(body=Cast("other_body", output_field=EncryptedTextField()))
        assert opened(note, "body") == b"new"


class TestReads:
    """Whatever reads, the application sees the value."""

    @pytest.fixture
    def note(self) -> Note:
        return Note.objects.create(title="t", body="x", other_body="y")

    def test_instances(self, note: Note) -> None:
        assert Note.objects.get().body == "x"
        assert [n.body for n in Note.objects.iterator()] == ["x"]
        assert Note.objects.in_bulk()[note.pk].body == "x"
        assert Note.objects.raw("SELECT * FROM testapp_note")[0].body == "x"
        assert Note.objects.only("body").get().body == "x"
        assert Note.objects.defer("body").get().body == "x"
        note.body = "changed"
        note.refresh_from_db(fields=["body"])
        assert note.body == "x"

    def test_values(self, note: Note) -> None:
        assert list(Note.objects.values("body")) == [{"body": "x"}]
        assert list(Note.objects.values_list("body", flat=True)) == ["x"]
        assert list(Note.objects.values_list("visits__remark", "body")) == [(None, "x")]

    def test_through_relations(self, note: Note) -> None:
        visit = Visit.objects.create(note=note, remark="r")
        assert Visit.objects.select_related("note").get().note.body == "x"
        assert list(Visit.objects.values_list("note__body", "remark")) == [("x", "r")]
        assert Note.objects.prefetch_related("visits").get().visits.all()[0].remark == "r"
        assert visit.note.body == "x"

    def test_annotations_that_hand_the_column_on(self, note: Note) -> None:
        Visit.objects.create(note=note, remark="r")
        assert Note.objects.annotate(copy=F("body")).get().copy == "x"
        assert Note.objects.annotate(c=Coalesce("body", "other_body")).get().c == "x"
        last = Visit.objects.filter(note=OuterRef("pk")).values("remark")[:1]
        assert Note.objects.annotate(r=Subquery(last)).get().r == "r"

    def test_counting_and_grouping_by_rows(self, note: Note) -> None:
        Visit.objects.create(note=note)
        Visit.objects.create(note=note)
        read = Note.objects.annotate(n=Count("visits")).get()
        assert (read.n, read.body) == (2, "x")
        assert Note.objects.aggregate(n=Count("body")) == {"n": 1}
        assert list(Note.objects.filter(visits__isnull=False).distinct()) == [note]

    def test_grouping_by_the_primary_key_and_the_column(self, note: Note) -> None:
        Visit.objects.create(note=note)
        counted = Note.objects.values("pk", "body").annotate(n=Count("visits"), latest=Max("visits__pk"))
        assert [row["body"] for row in counted.filter(latest__gt=0)] == ["x"]
        assert list(Note.objects.values("pk", "body").distinct()) == [{"pk": note.pk, "body": "x"}]

    def test_sorted_by_what_is_no_encrypted_column(self, note: Note) -> None:
        other = Note.objects.create(title="a longer one", body="z")
        Visit.objects.create(note=note)
        by_visits = Visit.objects.filter(note=OuterRef("pk")).values("pk")[:1]
        for ordered in (
            Note.objects.order_by(Length("title")),
            Note.objects.annotate(length=Length("title")).order_by("length"),
            Note.objects.order_by(Subquery(by_visits).desc(nulls_last=True)),
            Note.objects.order_by(Exists(Visit.objects.filter(note=OuterRef("pk")).values("remark")).desc()),
            Note.objects.annotate(seen=Exists(Visit.objects.filter(note=OuterRef("pk")).values("remark"))).order_by(
                "-seen"
            ),
            Note.objects.order_by(Case(When(body=None, then=Value(1)), default=F("pk"), output_field=IntegerField())),
            Note.objects.order_by(Case(When(Q(title="t") | Q(title=Upper("title")), then=Value(1)), default=Value(2))),
            Note.objects.order_by(Case(When(pk__in=Note.objects.filter(title="t"), then=Value(1)), default=Value(2))),
            Note.objects.annotate(heading=Coalesce("title", Value(""))).order_by("-heading"),
            Note.objects.extra(order_by=["-title"]),
            Note.objects.annotate(n=Count("visits")).order_by("-n"),
        ):
            assert [read.body for read in ordered] == ["x", "z"]
        assert Note.objects.latest("pk").body == other.body

    def test_in_a_subquery_of_its_own_table(self, note: Note) -> None:
        assert Note.objects.get(pk__in=Note.objects.filter(body__isnull=False)).body == "x"
        Visit.objects.create(note=note)
        assert Note.objects.filter(visits__note__body=None).count() == 0
        assert list(Note.objects.values_list("visits__note__body", "body")) == [("x", "x")]
        mine = Note.objects.filter(pk=OuterRef("pk")).values("body")[:1]
        assert Note.objects.annotate(copy=Subquery(mine)).get().copy == "x"

    def test_is_null(self, note: Note) -> None:
        empty = Note.objects.create(body=None)
        assert list(Note.objects.filter(body=None)) == [empty]
        assert list(Note.objects.filter(body__isnull=True)) == [empty]
        assert list(Note.objects.exclude(body=None)) == [note]
        Visit.objects.create(note=note)
        assert Visit.objects.filter(note__body=None).count() == 0
        assert Visit.objects.filter(note__body__isnull=False).count() == 1

    def test_partitions_keep_to_themselves(self) -> None:
        row = Tenancy.objects.create(left="l", left_too="l2", right="r", doc={"a": 1})
        Tenancy.objects.update(left=F("left_too"))
        row.refresh_from_db()
        assert (row.left, row.right, row.doc) == ("l2", "r", {"a": 1})
