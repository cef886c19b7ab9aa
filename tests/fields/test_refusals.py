"""What would make the database look into a record, or store something that isn't one, raises before any SQL is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import FieldError
from django.db import connection, transaction
from django.db.models import Case, Count, Exists, F, Max, Min, OuterRef, Q, Subquery, TextField, Value, When
from django.db.models.fields.json import KT
from django.db.models.functions import Cast, Coalesce, Concat, Length, Lower, Substr, Upper
from django.db.models.lookups import Exact, GreaterThan, In
from django.test.utils import CaptureQueriesContext

from django_asherah.fields import EncryptedJSONField, EncryptedTextField
from tests.fields.helpers import opened
from tests.testapp.models import Document, Note, Tenancy, Visit

pytestmark = pytest.mark.django_db

notes, documents, visits, tenancies = Note.objects, Document.objects, Visit.objects, Tenancy.objects
ENCRYPTED = EncryptedTextField()

LOOKUPS = [
    "exact", "iexact", "contains", "icontains", "startswith", "endswith", "regex", "iregex", "gt", "gte", "lt", "lte",
    "in", "range", "length", "unknown", "upper__exact", "lower__contains", "isnull__isnull",
]  # fmt: skip

QUERIES: dict[str, Callable[[], Any]] = {
    "get": lambda: notes.get(body="x"),
    "get_or_create": lambda: notes.get_or_create(body="x"),
    "exclude": lambda: notes.exclude(body="x"),
    "Q or": lambda: notes.filter(Q(pk=1) | Q(body="x")),
    "through a relation": lambda: visits.filter(note__body="x"),
    "a JSON key": lambda: documents.filter(doc__a=1),
    "a deep JSON key": lambda: documents.filter(doc__a__b__0="x"),
    "a JSON key is null": lambda: documents.filter(doc__a__isnull=True),
    "JSON has_key": lambda: documents.filter(doc__has_key="a"),
    "JSON contains": lambda: documents.filter(doc__contains={"a": 1}),
    "JSON values of a key": lambda: documents.values("doc__a"),
    "JSON KT": lambda: documents.annotate(a=KT("doc__a")),
    "order by a JSON key": lambda: documents.order_by("doc__a"),
    "Exact expression": lambda: notes.filter(Exact(F("body"), "x")),
    "GreaterThan expression": lambda: notes.filter(GreaterThan(F("body"), "x")),
    "In expression": lambda: notes.filter(In(F("body"), ["x"])),
    "Exact annotation": lambda: notes.annotate(same=Exact(F("body"), "x")),
    "comparison of two columns": lambda: notes.annotate(same=Exact(F("body"), F("other_body"))),
    "F on the right": lambda: notes.filter(title=F("body")),
    "F on both sides": lambda: notes.filter(body=F("other_body")),
    "F through a relation on the right": lambda: visits.filter(note__title=F("note__body")),
    "OuterRef": lambda: notes.filter(Exists(visits.filter(remark=OuterRef("body")))),
    "OuterRef to a plain column": lambda: notes.filter(Exists(notes.filter(title=OuterRef("body")))),
    "a condition in When": lambda: notes.annotate(a=Case(When(title=F("body"), then=Value(1)))),
    "a condition in a Case that is compared": lambda: notes.filter(
        Exact(Case(When(title=F("body"), then=Value(1))), 1)
    ),
    "order_by": lambda: notes.order_by("body"),
    "order_by descending": lambda: notes.order_by("-body"),
    "order_by expression": lambda: notes.order_by(F("body").desc(nulls_last=True)),
    "order_by a function": lambda: notes.order_by(Lower("body")),
    "order_by of other columns": lambda: notes.order_by("body").values("pk"),
    "order_by through a relation": lambda: visits.order_by("note__body"),
    "order_by of an annotation": lambda: notes.annotate(b=F("body")).order_by("-b"),
    "order_by F of an annotation": lambda: notes.annotate(b=F("body")).order_by(F("b").asc()),
    "order_by of a Coalesce": lambda: notes.annotate(b=Coalesce("body", "other_body")).order_by("b"),
    "order_by of a Subquery": lambda: notes.annotate(b=Subquery(visits.values("remark")[:1])).order_by("b"),
    "order_by a Subquery": lambda: notes.order_by(Subquery(visits.values("remark")[:1])),
    "order_by a Case that yields the column": lambda: notes.order_by(Case(When(title="x", then=F("body")))),
    "order_by a Case that compares with the column": lambda: notes.order_by(
        Case(When(Q(title="x") | Q(title=F("body")), then=Value(1)))
    ),
    "order_by a comparison": lambda: notes.order_by(Case(When(Q(Exact(F("body"), "x")), then=Value(1)))),
    "grouping by an annotation": lambda: notes.annotate(b=F("body")).values("b").annotate(n=Count("pk")),
    "earliest": lambda: notes.earliest("body"),
    "latest": lambda: notes.latest("body"),
    "distinct": lambda: notes.values("body").distinct(),
    "grouping": lambda: notes.values("body").annotate(n=Count("pk")),
    "Count distinct": lambda: notes.aggregate(n=Count("body", distinct=True)),
    "Max": lambda: notes.aggregate(m=Max("body")),
    "Min": lambda: notes.annotate(m=Min("visits__remark")),
    "Upper": lambda: notes.annotate(u=Upper("body")),
    "Length": lambda: notes.annotate(n=Length("body")),
    "an alias": lambda: notes.alias(n=Length("body")).filter(n__gt=3),
    "Substr": lambda: notes.annotate(s=Substr("body", 1, 1)),
    "Concat": lambda: notes.annotate(c=Concat("body", "title")),
    "Cast": lambda: notes.annotate(c=Cast("body", output_field=TextField())),
    "a Value to compare with": lambda: notes.filter(title=Value("x", output_field=ENCRYPTED)),
}  # fmt: skip

UPDATES: dict[str, Callable[[], Any]] = {
    "Upper": lambda: notes.update(body=Upper("title")),
    "Upper of itself": lambda: notes.update(body=Upper("body")),
    "Concat": lambda: notes.update(body=Concat("body", Value("!"))),
    "a plain Value": lambda: notes.update(body=Value("x")),
    "a plain column": lambda: notes.update(body=F("title")),
    "a Case of plain Values": lambda: notes.update(body=Case(When(pk=1, then=Value("x")))),
    "a Case that keeps a plain default": lambda: notes.update(
        body=Case(When(pk=1, then=F("body")), default=Value("x"))
    ),
    "a Coalesce with a plain Value": lambda: notes.update(body=Coalesce("body", Value("x"))),
    "a Cast of plain text": lambda: notes.update(body=Cast("title", output_field=ENCRYPTED)),
    "a Subquery of plain text": lambda: notes.update(body=Subquery(notes.values("title")[:1])),
    "another partition": lambda: tenancies.update(left=F("right")),
    "a Value of another partition": lambda: tenancies.update(left=Value("x", output_field=ENCRYPTED)),
    "another kind of field": lambda: tenancies.update(left=F("doc")),
    "a document where text belongs": lambda: notes.update(body=Value("x", output_field=EncryptedJSONField())),
    "a plain F arithmetic": lambda: notes.update(body=F("body") + "x"),
    "create with a plain Value": lambda: notes.create(body=Value("x")),
    "create with a function": lambda: notes.create(body=Upper(Value("x"))),
    "bulk_create": lambda: notes.bulk_create([Note(body=Lower(Value("X")))]),
    "save": lambda: Note(body=Concat(Value("a"), Value("b"))).save(),
    "update_or_create": lambda: notes.update_or_create(title="t", defaults={"body": Upper(Value("x"))}),
}


@pytest.mark.parametrize("lookup", LOOKUPS)
@pytest.mark.parametrize("manager", [notes, documents])
def test_no_lookup_but_isnull(lookup: str, manager: Any) -> None:
    name = "body" if manager is notes else "doc"
    with pytest.raises(FieldError, match=r"testapp\.\w+\.\w+ is encrypted: '\w+' can't look into it\. Only isnull"):
        manager.filter(**{f"{name}__{lookup}": "x"})


@pytest.mark.parametrize("name", QUERIES)
def test_no_query_looks_into_a_record(name: str) -> None:
    Note.objects.create(title="t", body="x")
    with (
        CaptureQueriesContext(connection) as sent,
        pytest.raises(FieldError, match=r"is encrypted|Join on 'doc' not permitted"),
    ):
        list(QUERIES[name]())
    assert [query["sql"] for query in sent if "testapp" in query["sql"]] == []


@pytest.mark.parametrize("name", UPDATES)
def test_nothing_but_records_is_stored(name: str) -> None:
    note = Note.objects.create(title="t", body="x")
    Tenancy.objects.create(left="l", right="r", doc=1)
    with transaction.atomic(), pytest.raises(FieldError, match=r"is encrypted"), transaction.atomic():
        UPDATES[name]()
    assert opened(note, "body") == b"x"
    assert Note.objects.count() == 1


def test_distinct_on_is_refused() -> None:
    with pytest.raises((FieldError, NotImplementedError if connection.vendor != "postgresql" else FieldError)):
        list(notes.distinct("body"))


def test_counts_of_an_encrypted_column_can_be_compared_and_sorted_by() -> None:
    for title in ("once", "twice", "twice"):
        Note.objects.create(title=title, body="x")
    counted = Note.objects.values("title").annotate(n=Count("body"))
    assert list(counted.filter(n__gt=1)) == [{"title": "twice", "n": 2}]
    assert [row["title"] for row in counted.order_by("-n")] == ["twice", "once"]
