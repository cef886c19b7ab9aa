"""Groups, distinct() and set operations: a record decides nowhere which rows are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import FieldError
from django.db import NotSupportedError, connection
from django.db.models import Count, F, OuterRef, Subquery
from django.db.models.functions import Coalesce

from tests.fields.helpers import refused
from tests.testapp.models import Child, Note, Visit
from tests.testapp.tenants import Doctor, Member, Referral, Staff, Stay

pytestmark = pytest.mark.django_db

notes, visits, stays = Note.objects, Visit.objects, Stay.objects

APART: dict[str, Callable[[], Any]] = {
    "its own key": lambda: notes.values("pk", "body"),
    "its own key, through a foreign key": lambda: visits.values("note__id", "note__body"),
    "the foreign key": lambda: visits.values("note", "note__body"),
    "a key of the row that points at it": lambda: visits.values("pk", "note__body"),
    "a composite key": lambda: stays.values("house", "number", "secret"),
    "something unique": lambda: Member.objects.values("name", "tenant", "secret"),
    "something unique, through a foreign key": lambda: Referral.objects.values(
        "member__name", "member__tenant", "member__secret"
    ),
    "a parent's key": lambda: Child.objects.values("uuid", "child_secret"),
    "a child's key": lambda: Child.objects.values("parent_ptr", "secret"),
    "an annotation": lambda: notes.annotate(b=F("body")).values("pk", "b"),
    "a subquery of its own": lambda: notes.annotate(
        b=Subquery(visits.filter(note=OuterRef("pk")).values("remark")[:1])
    ).values("pk", "b"),
    "a Coalesce": lambda: notes.annotate(b=Coalesce("body", "other_body")).values("pk", "b"),
}

FOLDED: dict[str, Callable[[], Any]] = {
    "alone": lambda: notes.values("body"),
    "a plain column": lambda: notes.values("title", "body"),
    "another row's key": lambda: visits.values("note__id", "remark"),
    "the key of many rows' row": lambda: visits.values("note__pk", "note__body", "remark"),
    "a part of a composite key": lambda: stays.values("house", "secret"),
    "what may be NULL for many": lambda: Staff.objects.values("doctor__pk", "site", "salary"),
    "the other way round": lambda: notes.values("pk", "visits__remark"),
    "an annotation": lambda: notes.annotate(b=F("body")).values("b"),
    "a Coalesce": lambda: notes.annotate(b=Coalesce("body", "other_body")).values("title", "b"),
    "a subquery": lambda: notes.annotate(b=Subquery(visits.filter(note=OuterRef("pk")).values("remark")[:1])).values(
        "title", "b"
    ),
}


@pytest.fixture(autouse=True)
def rows() -> None:
    for _ in range(2):
        note = notes.create(title="t", body="x", other_body="y")
        for _ in range(2):
            visits.create(note=note, remark="r")
        Child.objects.create(secret="s", child_secret="c")
    for number in range(2):
        stays.create(house=1, number=number, secret="s")
        member = Member.objects.create(tenant="t", name=str(number), secret="s")
        Referral.objects.create(member=member)
    Doctor.objects.create(site=1, unit=1, salary="1", licence="l")


@pytest.mark.parametrize("way", APART)
def test_rows_that_are_kept_apart_are_grouped_and_made_distinct(way: str) -> None:
    rows = APART[way]()
    single = {tuple(row.items()) for row in rows}
    assert len(rows.distinct()) == rows.distinct().count() == len(single)
    assert len(rows.annotate(n=Count("pk"))) == len(single)


@pytest.mark.parametrize("way", FOLDED)
def test_rows_that_records_would_tell_apart_are_refused(way: str) -> None:
    rows = FOLDED[way]()
    for query in (rows.distinct(), rows.annotate(n=Count("pk"))):
        with refused(FieldError, r"is encrypted: no two of its records are equal, so rows can't be grouped by it"):
            list(query)
    with refused(FieldError, r"is encrypted"):
        rows.distinct().count()


def test_instances_with_another_tables_column() -> None:
    with refused(FieldError, r"testapp\.Visit\.remark is encrypted"):
        list(notes.annotate(r=F("visits__remark")).distinct())
    with refused(FieldError, r"testapp\.Visit\.remark is encrypted"):
        list(notes.annotate(r=F("visits__remark"), n=Count("visits__note")))
    found = visits.annotate(b=F("note__body"), n=Count("note__visits"))
    assert [(row.b, row.n) for row in found] == [("x", 2)] * 4


def test_a_composite_key_as_a_whole() -> None:
    assert len(stays.values("pk", "house", "secret").annotate(n=Count("number"))) == 2


def test_what_was_grouped_by_its_rows_before() -> None:
    counted, by_key = notes.annotate(n=Count("visits")), notes.values("pk").annotate(n=Count("visits"))
    assert [(row["body"], row["n"]) for row in counted.values("body", "n")] == [("x", 2)] * 2
    assert [(row["body"], row["n"]) for row in by_key.values("body", "n")] == [("x", 2)] * 2


def test_distinct_on_another_column() -> None:
    found = notes.order_by("title").distinct("title").values_list("body", flat=True)
    if connection.vendor == "postgresql":
        assert list(found) == ["x"]
    else:
        with refused(NotSupportedError, "DISTINCT ON fields is not supported"):
            list(found)


COMBINATORS = ["union", "intersection", "difference"]


@pytest.mark.parametrize("combinator", COMBINATORS)
def test_set_operations_that_compare_records_are_refused(combinator: str) -> None:
    for left, right in (
        (notes.values("body"), notes.values("other_body")),
        (notes.values("body"), notes.values("body")),
        (notes.values("body"), visits.values("remark")),
        (notes.values("pk", "body"), visits.values("pk", "remark")),
        (notes.values("pk", "body"), notes.values("pk", "other_body")),
        (visits.values("note", "remark"), visits.values("note", "remark")),
    ):
        with refused(FieldError, rf"is encrypted: {combinator}\(\) would compare"):
            list(getattr(left, combinator)(right))


@pytest.mark.parametrize("combinator", COMBINATORS)
def test_set_operations_of_whole_rows_stay(combinator: str) -> None:
    first, last = notes.order_by("pk")
    every, late = notes.order_by(), notes.filter(pk=last.pk).order_by()
    expected = {"union": [first, last], "intersection": [last], "difference": [first]}[combinator]
    found = getattr(every, combinator)(late)
    assert sorted(found, key=lambda note: note.pk) == expected
    assert len(getattr(every.values("pk", "body"), combinator)(late.values("pk", "body"))) == len(expected)
    with refused(FieldError, rf"is encrypted: {combinator}\(\) would compare"):
        list(found.values("body"))


def test_union_of_all_stays() -> None:
    assert sorted(notes.values_list("body", flat=True).union(visits.values_list("remark", flat=True), all=True)) == [
        *"rrrr", "x", "x",
    ]  # fmt: skip
