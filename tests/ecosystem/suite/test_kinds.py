"""Packages that ask what a field is: an encrypted one is what the plain one is, for some of them after one call."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import django_tables2
import pytest
import strawberry
import strawberry_django
from django.core.exceptions import FieldError
from django.db import models
from django_filters.filterset import filterset_factory
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from model_bakery import baker, generators
from ninja import ModelSchema
from pydantic import ValidationError
from rest_framework import routers, viewsets
from rest_framework.serializers import ModelSerializer
from strawberry_django.fields.types import field_type_map

from django_asherah.contrib import model_bakery as contrib_model_bakery
from django_asherah.contrib import ninja as contrib_ninja
from django_asherah.contrib import strawberry_django as contrib_strawberry_django
from tests.ecosystem.suite.kinds import VALUES, EncryptedSlugField, Plain, Sealed
from tests.ecosystem.suite.models import Documented
from tests.test_docs import DOCS, blocks

factory: Any = import_module("ninja.orm.factory")
pytestmark = pytest.mark.django_db

MODELS = (Plain, Sealed)
KINDS = [kind.lower() for kind in VALUES]


def serializer_of(kind_model: Any) -> Any:
    class Kind(ModelSerializer[Any]):
        class Meta:
            model = kind_model
            fields = "__all__"

    return Kind


def test_rest_framework_has_the_plain_fields() -> None:
    plain, sealed = (serializer_of(model)().fields for model in MODELS)
    for kind in KINDS:
        assert (kind, type(sealed[kind])) == (kind, type(plain[kind]))
        assert sealed[kind].field_name == kind
    assert sealed["decimalfield"].max_digits == 8


def test_rest_framework_writes_the_plain_values() -> None:
    values = {kind.lower(): value for kind, value in VALUES.items()}
    plain, sealed = (serializer_of(model)(model.objects.create(id=1, name="a", **values)).data for model in MODELS)
    assert sealed == plain


def test_spectacular_describes_the_plain_fields() -> None:
    plain, sealed = (_described(model) for model in MODELS)
    assert set(plain) == {"id", "name", *KINDS}
    assert sealed == plain
    assert sealed["decimalfield"] == {"type": "string", "format": "decimal", "pattern": r"^-?\d{0,6}(?:\.\d{0,2})?$"}


def _described(model: Any) -> Any:
    class View(viewsets.ModelViewSet[Any]):
        serializer_class = serializer_of(model)
        queryset = model.objects.all()
        schema = AutoSchema()
        filter_backends = ()

    router = routers.SimpleRouter()
    router.register("kinds", View)
    return SchemaGenerator(patterns=router.urls).get_schema(public=True)["components"]["schemas"]["Kind"]["properties"]


def test_filters_and_tables_have_the_plain_classes() -> None:
    tables = [django_tables2.table_factory(model).base_columns for model in MODELS]
    plain, sealed = ({name: type(column) for name, column in columns.items()} for columns in tables)
    assert sealed == plain
    for kind in {*KINDS} - {"binaryfield", "jsonfield"}:  # django-filter has none for these, plain or not.
        one, other = (filterset_factory(model, fields=[kind]).base_filters[kind] for model in MODELS)
        assert type(other) is type(one)


def test_a_table_is_ordered_by_no_encrypted_column() -> None:
    Sealed.objects.create(name="a", **{kind.lower(): value for kind, value in VALUES.items()})
    table = django_tables2.table_factory(Sealed)
    with pytest.raises(FieldError, match=r"suite\.Sealed\.charfield is encrypted"):
        list(table(Sealed.objects.all(), order_by="charfield").rows)
    unordered = table(Sealed.objects.all(), order_by="charfield", orderable=False)
    assert [row.get_cell("charfield") for row in unordered.rows] == ["Zoë"]


def block_of_the_page(tool: str) -> str:
    """Return the code with which the page has a tool know the kinds."""
    codes = [code for _, code, _ in blocks(DOCS / "how-to" / "use-with-other-packages.md", "python")]
    (code,) = [code for code in codes if f"django_asherah.contrib import {tool} " in code]
    return code


class TestNinja:
    @pytest.fixture
    def before(self) -> Any:
        return factory.get_schema_field

    @pytest.fixture(autouse=True)
    def installed(self, before: Any) -> Iterator[None]:
        contrib_ninja.install()
        factory.factory.schemas.clear()  # It makes each schema once.
        yield
        factory.get_schema_field = before

    def test_a_schema_has_the_plain_types(self) -> None:
        plain, sealed = (self._schema(model).model_json_schema()["properties"] for model in MODELS)
        assert set(plain) == {"id", "name", *KINDS}
        assert sealed == plain
        assert sealed["integerfield"] == {"title": "Integerfield", "type": "integer"}
        assert sealed["charfield"] == {"title": "Charfield", "type": "string", "maxLength": 20}

    def test_it_reads_and_writes_the_values(self) -> None:
        values = {kind.lower(): value for kind, value in VALUES.items() if kind != "BinaryField"}
        instances = [model(id=1, name="a", **values) for model in MODELS]
        plain, sealed = (
            self._schema(type(instance), list(values)).from_orm(instance).model_dump(mode="json")
            for instance in instances
        )
        assert sealed == plain
        assert sealed["decimalfield"] == "1.50"

    def test_the_code_of_the_page(self) -> None:
        namespace: dict[str, Any] = {"Patient": Documented, "__name__": "page"}
        exec(block_of_the_page("ninja"), namespace)
        read = namespace["PatientOut"].from_orm(Documented(id=1, ssn="s", record={"a": 1}))
        assert read.model_dump() == {"id": 1, "ssn": "s", "record": {"a": 1}}

    def test_without_it_what_is_no_text_is_refused(self, before: Any) -> None:
        factory.get_schema_field = before
        schema = self._schema(Sealed, ["integerfield"])
        assert schema.model_json_schema()["properties"]["integerfield"]["type"] == "string"
        with pytest.raises(ValidationError, match="should be a valid string"):
            schema.from_orm(Sealed(integerfield=1))

    def test_without_it_a_type_in_the_class_is_the_fields(self, before: Any) -> None:
        factory.get_schema_field = before

        class PatientOut(ModelSchema):
            record: dict[str, Any]

            class Meta:
                model = Documented
                fields = ("record",)

        assert PatientOut.from_orm(Documented(record={"a": 1})).record == {"a": 1}

    def test_a_second_call_changes_nothing(self) -> None:
        once = factory.get_schema_field
        contrib_ninja.install()
        assert factory.get_schema_field is once

    @staticmethod
    def _schema(kind_model: Any, names: Any = "__all__") -> Any:
        class Kind(ModelSchema):
            class Meta:
                model = kind_model
                fields = names

        return Kind


class TestModelBakery:
    @pytest.fixture(autouse=True)
    def installed(self) -> Iterator[None]:
        before = dict(generators.user_mapping)
        exec(block_of_the_page("model_bakery"), {})
        yield
        generators.user_mapping.clear()
        generators.user_mapping.update(before)

    def test_it_fills_every_kind_with_the_plain_types(self) -> None:
        plain, sealed = (baker.make(model, _fill_optional=True) for model in MODELS)
        sealed.refresh_from_db()
        for kind in KINDS:
            assert (kind, type(getattr(sealed, kind))) == (kind, type(getattr(plain, kind)))

    def test_a_generator_that_was_added_before_stays(self) -> None:
        generators.add("tests.ecosystem.suite.kinds.EncryptedSlugField", lambda: "mine")
        contrib_model_bakery.install()
        assert baker.make(Sealed).slugfield == "mine"


class TestStrawberryDjango:
    @pytest.fixture(autouse=True)
    def installed(self) -> Iterator[None]:
        before = dict(field_type_map)
        exec(block_of_the_page("strawberry_django"), {})
        yield
        field_type_map.clear()
        field_type_map.update(before)

    def test_a_type_has_the_plain_types(self) -> None:
        plain, sealed = (self._schema(model) for model in MODELS)
        assert sealed == plain
        assert "  decimalfield: Decimal!\n" in sealed
        assert "  jsonfield: JSON!\n" in sealed
        assert "  textfield: String\n" in sealed

    @pytest.mark.parametrize("kind", ["binaryfield", "durationfield"])
    @pytest.mark.parametrize("model", MODELS)
    def test_these_have_no_type_of_its_own(self, model: Any, kind: str) -> None:
        with pytest.raises(TypeError, match="has not been implemented"):
            self._schema(model, kind)

    def test_a_type_that_was_set_before_stays(self) -> None:
        field_type_map[EncryptedSlugField] = strawberry.ID
        contrib_strawberry_django.install()
        assert "  slugfield: ID!\n" in self._schema(Sealed, "slugfield")

    @staticmethod
    def _schema(model: type[models.Model], *kinds: str) -> str:
        kinds = kinds or tuple(kind for kind in KINDS if kind not in ("binaryfield", "durationfield"))
        kind_type = strawberry_django.type(model)(
            type("Kind", (), {"__annotations__": dict.fromkeys(kinds, strawberry.auto)})
        )
        return strawberry.Schema(strawberry.type(type("Query", (), {"__annotations__": {"kind": kind_type}}))).as_str()
