"""Whatever loads an instance, it holds records until an attribute is read; whatever loads values, they are opened."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from django.db.models import (
    Case,
    Count,
    Exists,
    F,
    OuterRef,
    QuerySet,
    Subquery,
    When,
    Window,
)
from django.db.models.functions import Coalesce, RowNumber
from django.test.utils import isolate_apps

from django_asherah.fields.sealed import SealedValue
from tests.fields.test_types import NAMES, other, same
from tests.fields.watching import is_sealed, sealed_names
from tests.testapp.models import Compact, Document, Note, Typed

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


def _copied(objects: Objects, name: str, found: int) -> Any:
    """Return a query of the one row or of none, with an annotation of the column."""
    return objects.annotate(copy=F(name)).filter(pk__gt=0 if found else 10**9)


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
    "an annotation, or another": lambda objects, name: _copied(objects, name, 1) | _copied(objects, name, 0),
    "an annotation and a union": lambda objects, name: _copied(objects, name, 1).union(_copied(objects, name, 0)),
    "an annotation, distinct": lambda objects, name: _copied(objects, name, 1).distinct()[:3],
    "an annotation and a filtered window": lambda objects, name: (
        _copied(objects, name, 1).annotate(n=Window(RowNumber())).filter(n=1)
    ),
    "an annotation of an annotation": lambda objects, name: _copied(objects, name, 1).annotate(again=F("copy")),
    "an annotation in bulk": lambda objects, name: _copied(objects, name, 1).in_bulk().values(),
    "raw with other names": lambda objects, name: objects.raw(
        f"SELECT id, {name} AS other FROM {_table(objects)}", translations={"other": name}
    ),
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


@isolate_apps("tests.testapp")
def test_a_from_db_of_ones_own_is_given_records() -> None:
    """A limit: what Django's documentation keeps there, to see later what has changed, is read from the instance."""

    class Watched(Note):
        class Meta:
            proxy = True
            app_label = "testapp"

        @classmethod
        def from_db(cls, db: Any, names: Any, values: Any, **options: Any) -> Any:
            instance = super().from_db(db, names, values, **options)
            instance.given, instance.loaded = dict(zip(names, values, strict=True)), instance.body
            return instance

    Note.objects.create(title="t", body="x")
    watched: Any = Watched._default_manager.get()
    assert (watched.given["title"], type(watched.given["body"])) == ("t", SealedValue)
    assert (watched.loaded, is_sealed(watched, "other_body")) == ("x", True)


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
        objects.filter(pk__gt=0)
        .values_list(name, flat=True)
        .union(objects.filter(pk__lt=0).values_list(name), all=True)
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
