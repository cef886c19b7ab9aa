"""Expressions over encrypted columns: what comes back is a value or the query's own text, never a record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import django
import pytest
from django.contrib.postgres.aggregates import ArrayAgg
from django.contrib.postgres.expressions import ArraySubquery
from django.core.exceptions import FieldError
from django.db import connection, models
from django.db.models import (
    Case,
    CharField,
    Count,
    Exists,
    ExpressionWrapper,
    F,
    FilteredRelation,
    Func,
    JSONField,
    Max,
    OuterRef,
    Q,
    Subquery,
    TextField,
    Value,
    When,
    Window,
)
from django.db.models.expressions import RawSQL
from django.db.models.functions import (
    Cast,
    Coalesce,
    Collate,
    Concat,
    FirstValue,
    Greatest,
    JSONObject,
    Lag,
    Left,
    NullIf,
    RowNumber,
)
from django.db.models.lookups import Exact, In, IsNull
from django.test.utils import CaptureQueriesContext

from django_asherah.fields import EncryptedIntegerField, EncryptedTextField
from tests.fields.helpers import raw, refused
from tests.testapp.models import Clinic, Compact, Document, Note, Parent, Patient, Tenancy, Typed, Visit

if django.VERSION < (6,):
    from django.contrib.postgres.aggregates import StringAgg
else:
    from django.db.models import StringAgg

pytestmark = pytest.mark.django_db

notes, visits, tenancies, patients = Note.objects, Visit.objects, Tenancy.objects, Patient.objects
FLAG = ExpressionWrapper(F("boolean"), output_field=Typed._meta.get_field("boolean"))
TEXT, ENCRYPTED = TextField(), EncryptedTextField()
SSN = Patient._meta.get_field("ssn")
BODY_OF_NOTE = notes.filter(pk=OuterRef("pk")).values("body")


class Reverse(Func):
    """A third party's function."""

    function = "REVERSE"


class GroupConcat(models.Aggregate):
    """A third party's aggregate."""

    function, output_field = "GROUP_CONCAT", TextField()


class Masked(Coalesce):
    """A third party's Coalesce, which may do anything with what it is given."""


class Cut(models.Transform):
    """A third party's transform."""

    function, lookup_name = "LOWER", "cut"


class TestNatural:
    """A literal comes back as itself, a record as its value."""

    @pytest.fixture(autouse=True)
    def rows(self) -> None:
        notes.create(title="full", body="x", other_body="y")
        notes.create(title="none", body=None, other_body="y")

    QUERIES: ClassVar[dict[str, tuple[Callable[[], Any], list[Any]]]] = {
        "Coalesce": (lambda: Coalesce("body", Value("n/a"), output_field=ENCRYPTED), ["x", "n/a"]),
        "Coalesce with the model's field": (
            lambda: Coalesce("body", Value("n/a"), output_field=Note._meta.get_field("body")),
            ["x", "n/a"],
        ),
        "Coalesce with a sealed value": (lambda: Coalesce("body", Value("n/a", output_field=ENCRYPTED)), ["x", "n/a"]),
        "Coalesce of columns": (lambda: Coalesce("body", "other_body"), ["x", "y"]),
        "Coalesce with an empty text": (lambda: Coalesce("body", Value(""), output_field=ENCRYPTED), ["x", ""]),
        "Case": (
            lambda: Case(When(title="full", then=Value("***")), default=F("other_body"), output_field=ENCRYPTED),
            ["***", "y"],
        ),
        "Case without a default": (lambda: Case(When(title="none", then=F("other_body"))), [None, "y"]),
        "Case that asks for NULL": (
            lambda: Case(When(body=None, then=Value("none")), default=Value("some"), output_field=TEXT),
            ["some", "none"],
        ),
        "Case of a Coalesce": (
            lambda: Case(
                When(title="none", then=Coalesce("body", Value("n/a"), output_field=ENCRYPTED)),
                default=Value("-"),
                output_field=ENCRYPTED,
            ),
            ["-", "n/a"],
        ),
        "Subquery": (lambda: Subquery(BODY_OF_NOTE), ["x", None]),
        "Subquery with the output field": (lambda: Subquery(BODY_OF_NOTE, output_field=ENCRYPTED), ["x", None]),
        "Subquery in a Coalesce": (
            lambda: Coalesce(Subquery(BODY_OF_NOTE), Value("n/a"), output_field=ENCRYPTED),
            ["x", "n/a"],
        ),
        "Subquery of a Coalesce": (
            lambda: Subquery(
                notes.filter(pk=OuterRef("pk")).values(b=Coalesce("body", Value("n/a"), output_field=ENCRYPTED))
            ),
            ["x", "n/a"],
        ),
        "ExpressionWrapper": (lambda: ExpressionWrapper(F("body"), output_field=ENCRYPTED), ["x", None]),
        "Cast to the same kind": (lambda: Cast("body", output_field=ENCRYPTED), ["x", None]),
        "F": (lambda: F("body"), ["x", None]),
    }

    @pytest.mark.parametrize("way", QUERIES)
    def test_the_value_or_the_literal(self, way: str) -> None:
        make, expected = self.QUERIES[way]
        rows = notes.order_by("pk")
        assert list(rows.annotate(e=make()).values_list("e", flat=True)) == expected
        assert [row.e for row in rows.annotate(e=make())] == expected
        assert list(rows.values_list(make(), flat=True)) == expected
        assert list(rows.alias(a=make()).annotate(e=F("a")).values_list("e", flat=True)) == expected

    def test_over_a_relation(self) -> None:
        for note in notes.order_by("pk"):
            visits.create(note=note)
        either = Coalesce("note__body", Value("n/a"), output_field=ENCRYPTED)
        assert list(visits.order_by("pk").values_list(either, flat=True)) == ["x", "n/a"]

    def test_a_value_of_another_type(self) -> None:
        Typed.objects.create(integer_or_none=7)
        Typed.objects.create(integer_or_none=None)
        zero = Coalesce("integer_or_none", Value(0, output_field=EncryptedIntegerField()))
        assert list(Typed.objects.order_by("pk").values_list(zero, flat=True)) == [7, 0]

    def test_a_char_field_needs_no_output_field(self) -> None:
        Typed.objects.create(char_or_none=None)
        assert Typed.objects.values_list(Coalesce("char_or_none", Value("n/a")), flat=True).get() == "n/a"

    def test_a_compact_column(self) -> None:
        Compact.objects.create(body="x")
        Compact.objects.create(body=None)
        body = Compact._meta.get_field("body")
        sealed = Coalesce("body", Value("n/a", output_field=body))
        assert list(Compact.objects.order_by("pk").values_list(sealed, flat=True)) == ["x", "n/a"]
        with refused(FieldError, r"testapp\.Compact\.body is encrypted: Coalesce would mix"):
            list(Compact.objects.values_list(Coalesce("body", Value("n/a"), output_field=body)))

    def test_a_partition_that_the_row_says(self) -> None:
        clinic = Clinic.objects.create()
        patients.create(clinic=clinic, ssn="x")
        patients.create(clinic=clinic, ssn=None)
        either = Coalesce("ssn", Value("n/a"), output_field=SSN)
        assert [row.e for row in patients.order_by("pk").annotate(e=either)] == ["x", "n/a"]
        assert [e for e, _ in patients.order_by("pk").values_list(either, "clinic")] == ["x", "n/a"]

    def test_a_literal_that_looks_like_a_record_comes_back_as_itself(self) -> None:
        record = raw(notes.get(title="full"), "body")
        either = Coalesce("body", Value(record), output_field=ENCRYPTED)
        assert notes.values_list(either, flat=True).get(title="none") == record

    def test_union_of_all(self) -> None:
        found = notes.values_list("body", flat=True).union(notes.values_list("other_body", flat=True), all=True)
        assert sorted(found, key=str) == [None, "x", "y", "y"]


HANDED_OUT: dict[str, Callable[[], Any]] = {
    "Coalesce": lambda: notes.annotate(e=Coalesce("body", Value("n/a"), output_field=TEXT)),
    "Coalesce without an output field": lambda: notes.annotate(e=Coalesce("body", Value("n/a"))),
    "Coalesce with a plain column": lambda: notes.annotate(e=Coalesce("body", "title", output_field=ENCRYPTED)),
    "Coalesce with a plain function": lambda: notes.annotate(
        e=Coalesce("body", Left("title", 3), output_field=ENCRYPTED)
    ),
    "Coalesce with a plain Subquery": lambda: notes.annotate(
        e=Coalesce("body", Subquery(notes.values("title")[:1]), output_field=ENCRYPTED)
    ),
    "Coalesce with a number": lambda: notes.annotate(e=Coalesce("body", Value(1), output_field=ENCRYPTED)),
    "Coalesce of two partitions": lambda: tenancies.annotate(
        e=Coalesce("left", "right", output_field=Tenancy._meta.get_field("left"))
    ),
    "Coalesce with another partition": lambda: tenancies.annotate(
        e=Coalesce("left", Value(""), output_field=ENCRYPTED)
    ),
    "a Coalesce of somebody else's": lambda: notes.annotate(e=Masked("body", "other_body")),
    "Case": lambda: notes.annotate(
        e=Case(When(title="t", then=Value("***")), default=F("body"), output_field=CharField())
    ),
    "Case in a Case": lambda: notes.annotate(
        e=Case(When(title="t", then=Case(When(pk=1, then=F("body")), output_field=TEXT)), output_field=TEXT)
    ),
    "ExpressionWrapper": lambda: notes.annotate(e=ExpressionWrapper(F("body"), output_field=TEXT)),
    "ExpressionWrapper in values_list": lambda: notes.values_list(ExpressionWrapper(F("body"), output_field=TEXT)),
    "over a relation": lambda: visits.values_list(ExpressionWrapper(F("note__body"), output_field=TEXT)),
    "Cast": lambda: notes.annotate(e=Cast("body", output_field=TEXT)),
    "Cast to JSON": lambda: notes.annotate(e=Cast("body", output_field=JSONField())),
    "Func": lambda: notes.annotate(e=Func(F("body"), function="TRIM", output_field=TEXT)),
    "Func with an encrypted output field": lambda: notes.annotate(
        e=Func(F("body"), function="TRIM", output_field=ENCRYPTED)
    ),
    "a function of somebody else's": lambda: notes.annotate(e=Reverse("body")),
    "a transform of somebody else's": lambda: notes.annotate(e=Cut(F("body"))),
    "Subquery": lambda: notes.annotate(e=Subquery(notes.values("body")[:1], output_field=TEXT)),
    "Subquery of an annotation": lambda: notes.annotate(
        e=Subquery(notes.annotate(b=F("body")).values("b")[:1], output_field=TEXT)
    ),
    "Subquery of a Subquery": lambda: notes.annotate(
        e=Subquery(visits.values(b=Subquery(notes.values("body")[:1]))[:1], output_field=TEXT)
    ),
    "Subquery of a plain model": lambda: Clinic.objects.annotate(
        e=Subquery(notes.values("body")[:1], output_field=TEXT)
    ),
    "Subquery in a Concat of a plain model": lambda: Clinic.objects.annotate(
        e=Concat(Subquery(notes.values("body")[:1]), Value("x"), output_field=TEXT)
    ),
    "OuterRef": lambda: visits.annotate(
        e=Subquery(notes.values(b=ExpressionWrapper(OuterRef("remark"), output_field=TEXT))[:1], output_field=TEXT)
    ),
    "Concat": lambda: notes.annotate(e=Concat("title", "body", output_field=TEXT)),
    "Left": lambda: notes.annotate(e=Left("body", 4, output_field=TEXT)),
    "Collate": lambda: notes.annotate(e=Collate("body", "nocase")),
    "NullIf": lambda: notes.annotate(e=NullIf("body", Value("x"))),
    "Greatest": lambda: notes.annotate(e=Greatest("body", "other_body")),
    "JSONObject": lambda: notes.annotate(e=JSONObject(b="body")),
    "addition": lambda: notes.annotate(e=F("body") + F("other_body")),
    "an aggregate of somebody else's": lambda: notes.aggregate(e=GroupConcat("body")),
    "StringAgg": lambda: notes.aggregate(e=StringAgg("body", Value(","), output_field=TEXT)),
    "an ordering in a function": lambda: notes.annotate(e=Func(F("body").asc(), function="RANK", output_field=TEXT)),
    "ArrayAgg": lambda: notes.aggregate(e=ArrayAgg("body")),
    "ArraySubquery": lambda: visits.annotate(e=ArraySubquery(notes.values("body"))),
    "RawSQL beside it": lambda: notes.annotate(e=Coalesce("body", RawSQL("'x'", []), output_field=ENCRYPTED)),
    "a Boolean as a condition": lambda: Typed.objects.filter(FLAG),
    "a Boolean in When": lambda: Typed.objects.annotate(e=Case(When(FLAG, then=Value(1)))),
    "dates": lambda: Typed.objects.dates("date", "year"),
    "Max": lambda: notes.aggregate(e=Max("body", output_field=TEXT)),
    "Max of distinct rows": lambda: notes.distinct().aggregate(e=Max("body")),
    "Max of an annotation": lambda: notes.annotate(b=F("body")).aggregate(e=Max("b")),
    "Max of a slice": lambda: notes.annotate(b=F("body")).order_by("pk")[:3].aggregate(e=Max("b")),
    "Window": lambda: notes.annotate(e=Window(Lag("body", output_field=TEXT), order_by="pk")),
    "Window of the first": lambda: notes.annotate(e=Window(FirstValue("body"), order_by="pk")),
    "Window ordered": lambda: notes.annotate(e=Window(RowNumber(), order_by="body")),
    "Window partitioned": lambda: notes.annotate(e=Window(RowNumber(), partition_by="body")),
    "union": lambda: notes.values_list("title").union(notes.values_list("body"), all=True),
    "union the other way round": lambda: notes.values_list("body").union(notes.values_list("title"), all=True),
    "union of values": lambda: notes.values("title").union(notes.values("body"), all=True),
    "union of another partition": lambda: tenancies.values_list("left").union(tenancies.values_list("right"), all=True),
    "union of a union": lambda: notes.values_list("title").union(
        notes.values_list("title").union(notes.values_list("body"), all=True), all=True
    ),
    "union with a literal": lambda: notes.values_list("body").union(
        notes.values_list(Coalesce("body", Value("n/a"), output_field=ENCRYPTED)), all=True
    ),
    "union of models": lambda: Document.objects.only("name", "doc").union(notes.only("title", "other_body"), all=True),
    "union in a Subquery": lambda: notes.annotate(
        e=Subquery(notes.values("title").union(notes.values("body"), all=True)[:1], output_field=TEXT)
    ),
    "a Value that is sealed": lambda: notes.annotate(e=Concat(Value("x", output_field=ENCRYPTED), Value("y"))),
    "raw_value() in a function": lambda: notes.annotate(e=Left(Note._meta.get_field("body").raw_value(), 4)),
    "raw_value() in a Subquery": lambda: Clinic.objects.annotate(
        e=Subquery(notes.values_list(Note._meta.get_field("body").raw_value())[:1])
    ),
}


@pytest.mark.parametrize("way", HANDED_OUT)
def test_no_record_is_handed_out(way: str) -> None:
    notes.create(title="t", body="x")
    with (
        CaptureQueriesContext(connection) as sent,
        refused(FieldError, r"(testapp\.\w+\.\w+|EncryptedTextField) is encrypted"),
    ):
        list(HANDED_OUT[way]())
    assert [query["sql"] for query in sent if "testapp" in query["sql"]] == []


def test_the_error_names_the_form_that_works() -> None:
    with refused(FieldError, r"testapp\.Note\.body is encrypted: .* output_field=Note\._meta\.get_field\('body'\)\.$"):
        list(notes.annotate(e=Coalesce("body", Value("n/a"), output_field=TEXT)))
    with refused(FieldError, r"testapp\.Note\.body is encrypted: .* output_field=Note\._meta\.get_field\('body'\)"):
        list(notes.annotate(e=Coalesce("body", "title", output_field=ENCRYPTED)))


def test_raw_value_reads_the_record() -> None:
    note = notes.create(body="x")
    stored = Note._meta.get_field("body").raw_value()
    assert notes.values_list(stored, flat=True).get() == raw(note, "body")
    assert notes.annotate(stored=stored).get().stored == raw(note, "body")


COMPARED: dict[str, Callable[[], Any]] = {
    "in": lambda: notes.filter(title__in=notes.values("body")),
    "not in": lambda: notes.exclude(title__in=notes.values("body")),
    "in of a plain model": lambda: Clinic.objects.filter(name__in=notes.values("body")),
    "in of a list": lambda: notes.filter(title__in=[F("body"), "x"]),
    "in of a list of other columns": lambda: notes.filter(In(F("title"), [F("body")])),
    "in a second subquery": lambda: Clinic.objects.filter(
        pk__in=visits.filter(note__title__in=notes.values("body")).values("pk")
    ),
    "in a union": lambda: Clinic.objects.filter(
        name__in=notes.values("title").union(notes.values("other_body"), all=True)
    ),
    "exact Subquery": lambda: notes.filter(title=Subquery(notes.values("body")[:1])),
    "excluded Subquery": lambda: notes.exclude(title=Subquery(notes.values("body")[:1])),
    "Subquery in a Coalesce": lambda: notes.filter(
        title=Coalesce(Subquery(notes.values("body")[:1]), Value("x"), output_field=ENCRYPTED)
    ),
    "an annotated Subquery": lambda: notes.annotate(s=Subquery(notes.values("body")[:1])).filter(s="x"),
    "an annotated Subquery on the right": lambda: notes.annotate(s=Subquery(notes.values("body")[:1])).filter(
        title=F("s")
    ),
    "range": lambda: notes.filter(title__range=(F("body"), "x")),
    "F to itself": lambda: notes.filter(body=F("body")),
    "startswith": lambda: notes.filter(title__startswith=F("body")),
    "a relation": lambda: visits.filter(note__title=F("remark")),
    "the other side of a relation": lambda: notes.filter(title=F("visits__remark")),
    "a foreign key": lambda: visits.filter(note__in=notes.values("body")),
    "a filtered relation": lambda: notes.annotate(
        v=FilteredRelation("visits", condition=Q(visits__remark=F("title")))
    ).filter(v__isnull=False),
    "a filtered relation, from the right": lambda: notes.annotate(
        v=FilteredRelation("visits", condition=Q(title=F("visits__remark")))
    ).filter(v__isnull=False),
    "an aggregate's filter": lambda: notes.aggregate(n=Count("pk", filter=Q(title=F("body")))),
    "When": lambda: notes.annotate(a=Case(When(title__in=notes.values("body"), then=Value(1)), default=Value(2))),
    "Exists inside": lambda: Clinic.objects.filter(Exists(notes.filter(title=F("body")))),
    "OuterRef": lambda: visits.filter(Exists(Clinic.objects.filter(name=OuterRef("remark")))),
    "having": lambda: notes.values("pk").annotate(n=Count("visits")).filter(n=F("body")),
    "an expression": lambda: notes.filter(Exact(F("title"), F("body"))),
    "IsNull of a function": lambda: notes.filter(IsNull(Left("body", 1), True)),
    "a delete": lambda: notes.filter(title=F("body")).delete(),
    "an update's condition": lambda: notes.filter(title__in=visits.values("remark")).update(title="x"),
    "an update's Case": lambda: notes.update(body=Case(When(title=F("other_body"), then=F("other_body")))),
    "order_by a relation": lambda: Clinic.objects.order_by(Subquery(notes.values("body")[:1])),
}  # fmt: skip


@pytest.mark.parametrize("way", COMPARED)
def test_no_record_is_compared(way: str) -> None:
    notes.create(title="t", body="x")
    with CaptureQueriesContext(connection) as sent, refused(FieldError, r"testapp\.\w+\.\w+ is encrypted"):
        list(COMPARED[way]())
    assert [query["sql"] for query in sent if "testapp" in query["sql"]] == []


STORED: dict[str, Callable[[], Any]] = {
    "F": lambda: notes.update(title=F("body")),
    "Coalesce": lambda: notes.update(title=Coalesce("body", "other_body")),
    "Subquery": lambda: notes.update(title=Subquery(notes.values("body")[:1])),
    "Subquery of another table": lambda: Clinic.objects.update(name=Subquery(notes.values("body")[:1])),
    "Case": lambda: notes.update(title=Case(When(pk__gt=0, then=F("body")))),
    "Concat": lambda: notes.update(title=Concat("title", "body", output_field=TEXT)),
    "a sealed value": lambda: notes.update(title=Value("x", output_field=ENCRYPTED)),
    "save": lambda: _saved(F("body")),
    "bulk_update": lambda: _bulk_updated(F("body")),
    "create": lambda: Clinic.objects.create(name=Subquery(notes.values("body")[:1])),
    "create with a sealed value": lambda: Clinic.objects.create(name=Value("x", output_field=ENCRYPTED)),
    "bulk_create": lambda: Clinic.objects.bulk_create([Clinic(name=Subquery(notes.values("body")[:1]))]),
    "raw_value()": lambda: notes.update(title=Note._meta.get_field("body").raw_value()),
}


def _saved(expression: Any) -> None:
    note = notes.get()
    note.title = expression
    note.save()


def _bulk_updated(expression: Any) -> None:
    note = notes.get()
    note.title = expression
    notes.bulk_update([note], ["title"])


@pytest.mark.parametrize("way", STORED)
def test_no_record_is_stored_in_a_plain_column(way: str) -> None:
    notes.create(title="t", body="x")
    Clinic.objects.create(name="c")
    with refused(FieldError, r"is encrypted"):
        STORED[way]()
    assert notes.values_list("title", flat=True).get() == "t"
    assert Clinic.objects.values_list("name", flat=True).get() == "c"


def test_what_needs_no_value_stays() -> None:
    note = notes.create(title="t", body="x")
    visits.create(note=note, remark="r")
    assert notes.filter(Exists(visits.filter(note=OuterRef("pk")).values("remark"))).get() == note
    assert notes.filter(pk__in=visits.filter(remark__isnull=False).values("note")).get() == note
    assert notes.annotate(is_set=Q(body__isnull=False)).values_list("is_set", flat=True).get() is True
    assert notes.aggregate(n=Count("body", filter=Q(body__isnull=False))) == {"n": 1}
    assert notes.filter(visits__note__in=notes.filter(body__isnull=False)).count() == 1
    whole = notes.all().union(notes.filter(title="t")).values("pk")
    assert visits.filter(note__in=whole).count() == 1
    assert Parent.objects.filter(secret__isnull=True).count() == 0
