"""What a partition template may not name is an error of ``manage.py check``, by its own id."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import django
import pytest
from django.apps import apps
from django.core import checks
from django.db import models
from django.db.models import F
from django.test.utils import isolate_apps

from django_asherah.fields import EncryptedJSONField, EncryptedTextField
from tests.testapp.models import Clinic

IS_NEWEST = django.VERSION >= (6, 1)


def found(partition: str = "p-{column}", **columns: Any) -> list[checks.CheckMessage]:
    """Check an encrypted field of a model with these columns."""
    with isolate_apps("tests.testapp"):
        body = {"__module__": "tests.testapp.models", "Meta": type("Meta", (), {"app_label": "testapp"}), **columns}
        model = type("Checked", (models.Model,), {**body, "secret": EncryptedTextField(partition=partition)})
        field: Any = model._meta.get_field("secret")  # type: ignore[attr-defined]
        return [each for each in field.check() if each.id.startswith("asherah.")]


def ids(partition: str = "p-{column}", **columns: Any) -> list[str | None]:
    return [message.id for message in found(partition, **columns)]


def relation(on_delete: Any, **options: Any) -> Any:
    return models.ForeignKey(Clinic, on_delete, related_name="+", **options)


class OwnChar(models.CharField):  # type: ignore[type-arg]
    """Makes its value when the row is saved."""

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        return "made"


class Lowered(models.CharField):  # type: ignore[type-arg]
    """Stores something else than what the instance holds."""

    def get_prep_value(self, value: Any) -> Any:
        return super().get_prep_value(value).lower()


GOOD: dict[str, Callable[[], Any]] = {
    "integer": models.IntegerField,
    "small integer": models.SmallIntegerField,
    "big integer": models.BigIntegerField,
    "positive integer": models.PositiveIntegerField,
    "char": lambda: models.CharField(max_length=9),
    "char with choices": lambda: models.CharField(max_length=9, choices=[("a", "A")]),
    "char that may be blank": lambda: models.CharField(max_length=9, blank=True, default=""),
    "slug": models.SlugField,
    "email": models.EmailField,
    "text": models.TextField,
    "UUID": lambda: models.UUIDField(default=uuid.uuid4),
    "date": models.DateField,
    "truth value": models.BooleanField,
    "binary collation": lambda: models.CharField(max_length=9, db_collation="utf8mb4_bin"),
    "collation that tells case": lambda: models.CharField(max_length=9, db_collation="C"),
    "PROTECT": lambda: relation(models.PROTECT),
    "RESTRICT": lambda: relation(models.RESTRICT),
    "CASCADE": lambda: relation(models.CASCADE),
    "DO_NOTHING": lambda: relation(models.DO_NOTHING),
    "no constraint": lambda: relation(models.CASCADE, db_constraint=False),
    "one to one": lambda: models.OneToOneField(Clinic, models.CASCADE, related_name="+"),
    "other column name": lambda: models.IntegerField(db_column="elsewhere"),
}


@pytest.mark.parametrize("column", GOOD)
def test_what_a_template_may_name(column: str) -> None:
    assert found(column=GOOD[column]()) == []


@pytest.mark.parametrize("partition", ["p-{clinic}", "p-{clinic_id}"])
def test_a_foreign_key_by_its_name_or_its_column(partition: str) -> None:
    assert found(partition, clinic=relation(models.PROTECT)) == []


@pytest.mark.parametrize("model", list(apps.get_app_config("testapp").get_models()), ids=lambda model: model.__name__)
def test_the_models_of_this_suite_are_good(model: type[models.Model]) -> None:
    assert [message for message in model.check() if (message.id or "").startswith("asherah.")] == []


BAD: dict[str, tuple[str, Callable[[], Any]]] = {
    "nullable": ("E121", lambda: models.IntegerField(null=True)),
    "nullable relation": ("E121", lambda: relation(models.CASCADE, null=True)),
    "db_default": ("E122", lambda: models.IntegerField(db_default=1)),
    "db_default of None": ("E122", lambda: models.CharField(max_length=9, db_default="")),
    "auto_now": ("E122", lambda: models.DateField(auto_now=True)),
    "auto_now_add": ("E122", lambda: models.DateField(auto_now_add=True)),
    "a pre_save of its own": ("E122", lambda: OwnChar(max_length=9)),
    "float": ("E123", models.FloatField),
    "decimal": ("E123", lambda: models.DecimalField(max_digits=5, decimal_places=2)),
    "datetime": ("E123", models.DateTimeField),
    "time": ("E123", models.TimeField),
    "duration": ("E123", models.DurationField),
    "JSON": ("E123", models.JSONField),
    "binary": ("E123", models.BinaryField),
    "IP address": ("E123", models.GenericIPAddressField),
    "encrypted text": ("E123", EncryptedTextField),
    "encrypted JSON": ("E123", EncryptedJSONField),
    "collation of MariaDB": ("E124", lambda: models.CharField(max_length=9, db_collation="utf8mb4_general_ci")),
    "collation in capitals": ("E124", lambda: models.CharField(max_length=9, db_collation="LATIN1_SWEDISH_CI")),
    "collation of accents": ("E124", lambda: models.CharField(max_length=9, db_collation="utf8mb4_0900_as_ci")),
    "collation of a text": ("E124", lambda: models.TextField(db_collation="nocase")),
    "collation of SQLite": ("E124", lambda: models.CharField(max_length=9, db_collation="NOCASE")),
    "SET_DEFAULT": ("E125", lambda: relation(models.SET_DEFAULT, default=1)),
    "SET": ("E125", lambda: relation(models.SET(1))),
    "SET of a function": ("E125", lambda: relation(models.SET(int))),
}


@pytest.mark.parametrize("column", BAD)
def test_what_it_may_not_name(column: str) -> None:
    id, make = BAD[column]
    (message,) = [message for message in found(column=make()) if message.id != "asherah.E122" or id == "E122"]
    assert (message.id, message.level) == (f"asherah.{id}", checks.ERROR)
    assert message.msg.startswith("The partition 'p-{column}' names 'column', ")
    assert message.hint
    assert message.obj.name == "secret"


@pytest.mark.parametrize("column", ["datetime", "time", "encrypted text", "encrypted JSON"])
def test_and_nothing_else_is_said_of_it(column: str) -> None:
    assert ids(column=BAD[column][1]()) == ["asherah.E123"]


def test_set_null_may_be_null_and_changes() -> None:
    assert ids(column=relation(models.SET_NULL, null=True)) == ["asherah.E121", "asherah.E125"]


def test_a_column_that_the_database_computes() -> None:
    generated = models.GeneratedField(expression=F("a"), output_field=models.IntegerField(), db_persist=True)
    assert "asherah.E122" in ids(column=generated, a=models.IntegerField())


@pytest.mark.skipif(not IS_NEWEST, reason="what the database does on delete came with Django 6.1")
class TestDeletesOfTheDatabase:
    def test_set_default(self) -> None:
        assert "asherah.E125" in ids(column=relation(models.DB_SET_DEFAULT, db_default=1))  # type: ignore[attr-defined]

    def test_set_null(self) -> None:
        assert ids(column=relation(models.DB_SET_NULL, null=True)) == ["asherah.E121", "asherah.E125"]  # type: ignore[attr-defined]

    def test_cascade_is_a_warning(self) -> None:
        (message,) = found(column=relation(models.DB_CASCADE))  # type: ignore[attr-defined]
        assert (message.id, message.level) == ("asherah.W128", checks.WARNING)


@pytest.mark.parametrize(
    "partition",
    [
        "p-{nope}",
        "p-{column.name}",
        "p-{column__name}",
        "p-{column[0]}",
        "p-{0}",
        "p-{pk}",
        "p-{ column }",
        "p-{Column}",
    ],
)
def test_no_column_of_that_name(partition: str) -> None:
    (message,) = found(partition, column=relation(models.PROTECT))
    name = partition[3:-1]
    assert message.id == "asherah.E120"
    assert message.msg == f"The partition {partition!r} names {name!r}, which is no column of testapp.Checked."
    assert "such as 'clinic_id'" in str(message.hint)


def test_a_relation_of_many_is_no_column() -> None:
    assert ids(column=models.ManyToManyField("self")) == ["asherah.E120"]


def test_a_composite_primary_key_is_no_column() -> None:
    columns = {"a": models.IntegerField(), "b": models.IntegerField(), "pk": models.CompositePrimaryKey("a", "b")}
    assert ids("p-{pk}", **columns) == ["asherah.E120"]
    assert ids("p-{a}", **columns) == []


def test_the_primary_key_that_the_database_makes() -> None:
    assert ids("p-{id}") == ["asherah.E122"]
    assert ids("p-{id}", id=models.UUIDField(primary_key=True, default=uuid.uuid4)) == []
    assert ids("p-{id}", id=models.CharField(primary_key=True, max_length=9)) == []


def test_the_field_itself() -> None:
    assert "asherah.E123" in ids("p-{secret}")


@pytest.mark.parametrize("partition", ["p-{{column}}", "{{}}", "a{{", "}}"])
def test_no_column_at_all(partition: str) -> None:
    (message,) = found(partition, column=models.IntegerField())
    assert (message.id, message.msg) == ("asherah.E120", f"The partition {partition!r} names no column.")


@pytest.mark.parametrize("partition", ["{column}{other}", "p-{column}-{other}", "{column}%{other}"])
def test_columns_that_run_together(partition: str) -> None:
    columns = {"column": models.IntegerField(), "other": models.IntegerField()}
    (message,) = found(partition, **columns)
    assert message.id == "asherah.E126"
    assert "such as ':' in" in str(message.hint)
    assert found("{column}:{other}", **columns) == []


def test_the_column_of_a_parent() -> None:
    with isolate_apps("tests.testapp"):
        meta = {"__module__": "tests.testapp.models", "Meta": type("Meta", (), {"app_label": "testapp"})}
        parent = type("Upper", (models.Model,), {**meta, "column": models.IntegerField()})
        child: Any = type("Lower", (parent,), {**meta, "secret": EncryptedTextField(partition="p-{column}")})
        messages = child._meta.get_field("secret").check()
    assert [message.id for message in messages] == ["asherah.E127"]


def test_each_fault_of_each_column_is_told() -> None:
    columns = {"a": models.FloatField(null=True), "b": models.DateTimeField(auto_now=True)}
    assert ids("{a}{b}{c}", **columns) == [
        "asherah.E126", "asherah.E121", "asherah.E123", "asherah.E122", "asherah.E123", "asherah.E120",
    ]  # fmt: skip


def test_a_column_that_stores_something_else_says_what_it_stores() -> None:
    assert ids(column=Lowered(max_length=9)) == []


@pytest.mark.parametrize("collation", ["nocase", "utf8mb4_general_ci", "utf8mb4_0900_as_ci"])
def test_a_collation_that_ignores_case(collation: str) -> None:
    assert ids(column=models.CharField(max_length=9, db_collation=collation)) == ["asherah.E124"]
    assert ids(column=models.CharField(max_length=9, db_collation="utf8mb4_bin")) == []
