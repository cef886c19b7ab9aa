"""A queryset whose records name many keys loads these together, and what can't be opened costs nothing but itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import F, IntegerField, OuterRef, QuerySet, Subquery
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce

from django_asherah import engine, lifecycle
from tests.databases import VENDOR
from tests.fields.watching import KEYS, key_queries, make_rotated_notes, queries
from tests.testapp.models import Clinic, Note, Patient, Tenancy, Visit

pytestmark = pytest.mark.django_db(transaction=True)

TEXTS = [f"text {place}" for place in range(KEYS)]
TOGETHER = 2
"""One query for all intermediate keys, and one for all system keys."""


def _united(rows: QuerySet[Any]) -> QuerySet[Any]:
    return rows.filter(title="title 0").union(rows.exclude(title="title 0")).order_by("id")


READS: dict[str, Callable[[QuerySet[Any]], list[Any]]] = {
    "instances": lambda rows: [row.body for row in rows],
    "instances of an iterator": lambda rows: [row.body for row in rows.iterator()],
    "some columns": lambda rows: [row.body for row in rows.only("body")],
    "in_bulk": lambda rows: [row.body for row in rows.in_bulk().values()],
    "values": lambda rows: [row["body"] for row in rows.values("body")],
    "values of all": lambda rows: [row["body"] for row in rows.values()],
    "values_list": lambda rows: [row[1] for row in rows.values_list("pk", "body")],
    "flat": lambda rows: list(rows.values_list("body", flat=True)),
    "an annotation": lambda rows: [row.copy for row in rows.annotate(copy=F("body"))],
    "only an annotation": lambda rows: [row.copy for row in rows.only("pk").annotate(copy=F("body"))],
    "a union": lambda rows: [row.body for row in _united(rows.order_by())],
}  # fmt: skip


class TestTogether:
    @pytest.fixture(autouse=True)
    def _rotated(self) -> None:
        make_rotated_notes()

    @pytest.mark.parametrize("read", READS)
    def test_the_keys_of_many_rows_cost_two_queries(self, read: str) -> None:
        values: list[Any] = []
        assert key_queries(lambda: values.extend(READS[read](Note.objects.order_by("pk")))) == TOGETHER
        assert values == TEXTS
        assert key_queries(lambda: READS[read](Note.objects.order_by("pk"))) == 0

    def test_loading_brings_them_and_reading_costs_nothing(self) -> None:
        rows: list[Note] = []
        assert key_queries(lambda: rows.extend(Note.objects.order_by("pk"))) == TOGETHER
        assert queries(lambda: [(row.body, row.other_body) for row in rows]) == []
        assert [row.body for row in rows] == TEXTS

    def test_related_rows_bring_theirs_along(self) -> None:
        for note in Note.objects.all():
            Visit.objects.create(note=note, remark=note.title)
            lifecycle.rotate()
        engine.get_factory().clear()
        visits: list[Visit] = []
        rows = Visit.objects.select_related("note").order_by("pk")
        assert key_queries(lambda: visits.extend(rows)) == TOGETHER
        assert queries(lambda: [(visit.remark, visit.note.body) for visit in visits]) == []
        assert [visit.note.body for visit in visits] == TEXTS
        engine.get_factory().clear()
        assert key_queries(lambda: list(Note.objects.prefetch_related("visits"))) == 2 * TOGETHER

    def test_chunks_of_an_iterator_cost_two_each_at_most(self) -> None:
        assert key_queries(lambda: list(Note.objects.iterator(chunk_size=2))) <= 3 * TOGETHER

    @pytest.mark.skipif(VENDOR != "sqlite", reason="only SQLite tells when it hands a row over")
    @pytest.mark.parametrize(("rows", "ahead"), [(Note.objects.all(), 3), (Note.objects.values("body"), KEYS)])
    def test_an_iterator_of_instances_reads_no_more_rows_ahead_than_its_chunks_hold(
        self, rows: Any, ahead: int
    ) -> None:
        """A limit: one of ``values()`` reads up to a hundred rows ahead, as Django asks no column about its chunks."""
        read: list[int] = []
        connection.ensure_connection()
        connection.connection.create_function("note_row", 1, lambda pk: read.append(pk) or pk)
        noted = rows.annotate(noted=RawSQL("note_row(testapp_note.id)", [], output_field=IntegerField()))
        next(noted.order_by("pk").iterator(chunk_size=2))
        assert 1 <= len(read) <= ahead

    def test_rows_of_a_raw_query_bring_theirs_one_by_one(self) -> None:
        """A limit: Django compiles no column for ``raw()``."""
        rows: list[Note] = []
        assert key_queries(lambda: rows.extend(Note.objects.raw("SELECT * FROM testapp_note"))) == KEYS * 2
        assert queries(lambda: [row.body for row in rows]) == []

    @pytest.mark.parametrize(
        "expression",
        [Coalesce("body", "other_body"), Subquery(Note.objects.filter(pk=OuterRef("pk")).values("body")[:1])],
    )
    def test_expressions_that_yield_records_bring_theirs_together(self, expression: Any) -> None:
        rows = Note.objects.order_by("pk").values_list(expression, flat=True)
        assert key_queries(lambda: list(rows)) == TOGETHER

    def test_clones_that_are_read_by_turns_yield_their_own_values(self) -> None:
        rows = Note.objects.order_by("pk").values_list("body", flat=True)
        early, late = rows.filter(title__lt="title 3"), rows.filter(title__gte="title 3")
        values: list[Any] = []
        turns = lambda: values.extend(zip(early.iterator(), late.iterator(), strict=True))  # noqa: E731
        assert key_queries(turns) == 2 * TOGETHER
        assert values == list(zip(TEXTS[:3], TEXTS[3:], strict=True))

    def test_an_instance_of_which_nothing_is_read_costs_keys_once(self) -> None:
        assert key_queries(lambda: list(Note.objects.all())) == TOGETHER
        assert key_queries(lambda: list(Note.objects.all())) == 0

    def test_what_holds_no_record_asks_for_no_key(self) -> None:
        asked = key_queries(lambda: (list(Note.objects.only("title")), list(Note.objects.values("pk", "title"))))
        assert asked + key_queries(lambda: (Note.objects.count(), Note.objects.exists())) == 0


def test_every_column_and_partition_counts() -> None:
    Tenancy.objects.create(left="l", left_too="l2", right="r", doc={})
    engine.get_factory().clear()
    assert key_queries(lambda: list(Tenancy.objects.all())) == TOGETHER


def test_rows_of_many_tenants_bring_the_keys_of_a_hundred_rows_at_a_time() -> None:
    clinics = Clinic.objects.bulk_create([Clinic() for _ in range(110)])
    Patient.objects.bulk_create([Patient(clinic=clinic, ssn=str(clinic.pk)) for clinic in Clinic.objects.all()])
    engine.get_factory().clear()
    patients: list[Patient] = []
    assert key_queries(lambda: patients.extend(Patient.objects.all())) == TOGETHER + 1  # The system key is the same.
    assert queries(lambda: [patient.ssn for patient in patients]) == []
    assert {patient.ssn for patient in patients} == {str(patient.clinic_id) for patient in patients}
    engine.get_factory().clear()
    assert key_queries(lambda: list(Patient.objects.values_list("clinic_id", "ssn"))) == TOGETHER + 1
    assert len(clinics) == 110


def test_a_subquery_of_records_asks_for_no_key() -> None:
    Note.objects.create(body="x")
    engine.get_factory().clear()
    with transaction.atomic():
        found = Note.objects.filter(pk__in=Subquery(Note.objects.filter(body__isnull=False).values("pk")))
        assert key_queries(found.count) == 0
