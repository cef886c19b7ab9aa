"""``full_clean()`` and constraints: one that looks into an encrypted field is refused, be its check silenced or not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.postgres.constraints import ExclusionConstraint
from django.core.exceptions import FieldError, ValidationError
from django.db import connection, models
from django.db.models import CheckConstraint, F, Q, UniqueConstraint, Value
from django.db.models.functions import Coalesce, Length, Lower
from django.db.models.lookups import Exact, GreaterThan
from django.forms.models import modelform_factory
from django.test.utils import isolate_apps

from django_asherah.fields import EncryptedDateField, EncryptedJSONField, EncryptedTextField
from tests.envelope.fakes import chain_text

pytestmark = pytest.mark.django_db

LOOKS_INTO_SECRET: dict[str, models.BaseConstraint] = {
    "exact": CheckConstraint(condition=~Q(secret=""), name="c"),
    "a lookup": CheckConstraint(condition=Q(secret__startswith="x"), name="c"),
    "a transform": CheckConstraint(condition=Q(secret__length__gt=3), name="c"),
    "another column with it": CheckConstraint(condition=Q(plain=F("secret")), name="c"),
    "it with another column": CheckConstraint(condition=Q(secret=F("plain")), name="c"),
    "within another": CheckConstraint(condition=Q(plain="") | (Q(plain="x") & Q(secret__gt="x")), name="c"),
    "an Exact expression": CheckConstraint(condition=Exact(F("secret"), "x"), name="c"),
    "a function": CheckConstraint(condition=GreaterThan(Length("secret"), 3), name="c"),
    "a Coalesce": CheckConstraint(condition=Exact(Coalesce("secret", Value("")), ""), name="c"),
    "a unique field": UniqueConstraint(fields=["plain", "secret"], name="c"),
    "a unique expression": UniqueConstraint(Lower("secret"), name="c"),
    "a unique field's condition": UniqueConstraint(fields=["plain"], condition=Q(secret="x"), name="c"),
    "a unique field's condition with an F": UniqueConstraint(
        fields=["plain"], condition=Q(plain=F("secret")), name="c"
    ),
    "a unique expression's condition": UniqueConstraint(Lower("plain"), condition=Q(secret="x"), name="c"),
    "an exclusion": ExclusionConstraint(name="c", expressions=[("secret", "="), ("plain", "=")]),
    "an exclusion's expression": ExclusionConstraint(name="c", expressions=[(Lower("secret"), "=")]),
    "an exclusion's condition": ExclusionConstraint(name="c", expressions=[("plain", "=")], condition=Q(secret="x")),
}
LOOKS_INTO_DOC = {
    "a key path": CheckConstraint(condition=Q(doc__a=1), name="c"),
    "a unique field's condition on a key path": UniqueConstraint(fields=["plain"], condition=Q(doc__a__gt=1), name="c"),
}
HARMLESS: dict[str, models.BaseConstraint] = {
    "of another column": CheckConstraint(condition=Q(plain="x"), name="c"),
    "whether it is NULL": CheckConstraint(condition=Q(secret__isnull=False), name="c"),
    "whether it is None": CheckConstraint(condition=~Q(secret=None), name="c"),
    "unique where it is NULL": UniqueConstraint(fields=["plain"], condition=Q(secret__isnull=True), name="c"),
    "unique, and includes it": UniqueConstraint(fields=["plain"], include=["secret"], name="c"),
}


def guarded(fields: dict[str, Any] | None = None, **options: Any) -> Any:
    """Return a model with encrypted fields, of which no check was made."""
    with isolate_apps("tests.testapp"):
        attributes = {
            "__module__": "tests.testapp.models",
            "Meta": type("Meta", (), {"app_label": "testapp", "db_table": "testapp_guarded", **options}),
            "secret": EncryptedTextField(null=True, blank=True),
            "doc": EncryptedJSONField(null=True, blank=True),
            "plain": models.CharField(max_length=9),
            **(fields or {}),
        }
        return type("Guarded", (models.Model,), attributes)


@pytest.fixture
def table(transactional_db: None) -> Iterator[None]:
    """A table of the model without its constraints."""
    plain = guarded()
    with connection.schema_editor() as editor:
        editor.create_model(plain)
    yield
    with connection.schema_editor() as editor:
        editor.delete_model(plain)


@pytest.mark.parametrize("value", ["900-12", "", None])
@pytest.mark.parametrize("constraint", LOOKS_INTO_SECRET.values(), ids=LOOKS_INTO_SECRET)
def test_what_looks_into_a_field_is_refused(constraint: Any, value: Any) -> None:
    model = guarded(constraints=[constraint.clone()])
    with pytest.raises(
        FieldError, match=r"^testapp\.Guarded\.secret is encrypted: constraint 'c' can't look"
    ) as caught:
        model(plain="x", secret=value).full_clean()
    assert "900-12" not in chain_text(caught.value)


@pytest.mark.parametrize("constraint", LOOKS_INTO_DOC.values(), ids=LOOKS_INTO_DOC)
def test_what_looks_into_a_document_is_refused(constraint: Any) -> None:
    model = guarded(constraints=[constraint.clone()])
    with pytest.raises(FieldError, match=r"^testapp\.Guarded\.doc is encrypted: constraint 'c' can't look into it"):
        model(plain="x", doc={"a": 1}).full_clean()


@pytest.mark.parametrize(
    ("fields", "options", "text"),
    [
        ({}, {"unique_together": [("plain", "secret")]}, "secret is encrypted: 'exact' can't look"),
        ({"code": EncryptedTextField(unique=True)}, {}, "code is encrypted: 'exact' can't look"),
        (
            {"day": models.DateField(), "code": EncryptedTextField(unique_for_date="day")},
            {},
            "code is encrypted: 'exact' can't look",
        ),
        (
            {"day": EncryptedDateField(), "code": models.TextField(unique_for_year="day")},
            {},
            "day is encrypted: 'year' can't look",
        ),
    ],
    ids=["unique_together", "unique", "unique_for_date", "unique_for_year"],
)
def test_uniqueness_is_refused(fields: dict[str, Any], options: dict[str, Any], text: str) -> None:
    values = {name: "2026-01-01" if name == "day" else "x" for name in fields}
    model = guarded({name: field.clone() for name, field in fields.items()}, **options)
    with pytest.raises(FieldError, match=re.escape(f"testapp.Guarded.{text}")):
        model(plain="x", secret="900-12", **values).full_clean()


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("constraint", HARMLESS.values(), ids=HARMLESS)
def test_what_does_not_is_evaluated(constraint: Any) -> None:
    model = guarded(constraints=[constraint.clone()])
    model(plain="x", secret="900-12").full_clean()


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("name", ["whether it is NULL", "whether it is None"])
def test_a_row_without_a_value_breaks_the_constraint_that_wants_one(name: str) -> None:
    model = guarded(constraints=[HARMLESS[name].clone()])
    with pytest.raises(ValidationError, match="Constraint “c” is violated"):
        model(plain="x").full_clean()


@pytest.mark.usefixtures("table")
def test_a_second_row_breaks_the_constraint_that_wants_one_alone() -> None:
    model = guarded(constraints=[HARMLESS["unique where it is NULL"].clone()])
    model.objects.create(plain="x")
    model.objects.create(plain="y", secret="900-12")
    model(plain="y").full_clean()
    with pytest.raises(ValidationError, match="Constraint “c” is violated"):
        model(plain="x").full_clean()


@pytest.mark.usefixtures("table")
def test_what_a_form_leaves_out_is_not_asked_for_as_with_any_field() -> None:
    model = guarded(constraints=[LOOKS_INTO_SECRET["exact"].clone()])
    assert modelform_factory(model, fields=["plain"])({"plain": "x"}).is_valid()
    with pytest.raises(FieldError, match="constraint 'c' can't look into it"):
        modelform_factory(model, fields=["plain", "secret"])({"plain": "x", "secret": "900-12"}).is_valid()


def test_a_constraint_of_an_abstract_model_is_refused_in_each_that_has_it() -> None:
    with isolate_apps("tests.testapp"):

        class Base(models.Model):
            secret = EncryptedTextField(blank=True)

            class Meta:
                abstract = True
                app_label = "testapp"
                constraints = (CheckConstraint(condition=~Q(secret=""), name="%(class)s"),)

        class One(Base):
            pass

        class Two(Base):
            pass

    for model in (One, Two):
        with pytest.raises(FieldError, match=rf"^testapp\.{model.__name__}\.secret is .* '{model.__name__.lower()}'"):
            model().full_clean()


def test_migrations_see_the_constraint_as_it_was_given() -> None:
    given = LOOKS_INTO_SECRET["exact"].clone()
    (held,) = guarded(constraints=[given])._meta.constraints
    assert held == LOOKS_INTO_SECRET["exact"]
    assert held.deconstruct() == LOOKS_INTO_SECRET["exact"].deconstruct()
    assert vars(held.clone()).keys() == vars(LOOKS_INTO_SECRET["exact"]).keys()
