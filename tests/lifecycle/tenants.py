"""Models whose rows say their partition, by columns of every kind."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

from django.apps import apps
from django.db import connection, models

from django_asherah import engine
from django_asherah.fields import EncryptedTextField
from tests.testapp.models import Clinic


@dataclass(frozen=True)
class Kind:
    """One way to say a partition.

    Attributes:
        template: the partition.
        places: what the columns hold, tenant by tenant.
        partitions: what that makes.
        columns: makes the columns.
    """

    template: str
    places: list[dict[str, Any]]
    partitions: list[str]
    columns: Any


KINDS = {
    "integer": Kind(
        "t-{tenant}",
        [{"tenant": 1}, {"tenant": 2}, {"tenant": -12}],
        ["t-1", "t-2", "t--12"],
        lambda: {"tenant": models.IntegerField()},
    ),
    "uuid": Kind(
        "{tenant}",
        [{"tenant": uuid.UUID(int=number << 64)} for number in (1, 2, 3)],
        [f"00000000-0000-000{number}-0000-000000000000" for number in (1, 2, 3)],
        lambda: {"tenant": models.UUIDField()},
    ),
    "text": Kind(
        "t-{tenant}",
        [{"tenant": text} for text in ("a_b", "A_b", "a_b ", "ä", "a/b", "a'%s\"")],
        ["t-a%5Fb", "t-A%5Fb", "t-a%5Fb%20", "t-%C3%A4", "t-a%2Fb", "t-a%27%25s%22"],
        lambda: {"tenant": models.CharField(max_length=20, db_column="in a tenant")},
    ),
    "day": Kind(
        "d-{tenant}",
        [{"tenant": date(2026, 1, 1)}, {"tenant": date(2026, 1, 2)}],
        ["d-2026-01-01", "d-2026-01-02"],
        lambda: {"tenant": models.DateField()},
    ),
    "address": Kind(
        "ip-{tenant}",
        [{"tenant": "10.0.0.1"}, {"tenant": "10.0.0.2"}],
        ["ip-10.0.0.1", "ip-10.0.0.2"],
        lambda: {"tenant": models.GenericIPAddressField()},
    ),
    "two": Kind(
        "{country}/{number}",
        [{"country": "CH", "number": 1}, {"country": "CH", "number": 2}, {"country": "DE", "number": 1}],
        ["CH/1", "CH/2", "DE/1"],
        lambda: {"country": models.CharField(max_length=2), "number": models.SmallIntegerField()},
    ),
    "flag": Kind(
        "f-{tenant}",
        [{"tenant": True}, {"tenant": False}],
        ["f-True", "f-False"],
        lambda: {"tenant": models.BooleanField()},
    ),
    "composite": Kind(
        "t-{tenant}",
        [{"tenant": "x"}, {"tenant": "y"}],
        ["t-x", "t-y"],
        lambda: {
            "pk": models.CompositePrimaryKey("tenant", "serial"),
            "tenant": models.CharField(max_length=20),
            "serial": models.IntegerField(),
        },
    ),
    "beside composite": Kind(
        "t-{tenant}",
        [{"tenant": 1}, {"tenant": 2}],
        ["t-1", "t-2"],
        lambda: {
            "pk": models.CompositePrimaryKey("site", "serial"),
            "site": models.IntegerField(default=5),
            "serial": models.IntegerField(),
            "tenant": models.IntegerField(),
        },
    ),
    "key": Kind(
        "{own}",
        [{"own": uuid.UUID(int=number)} for number in (7, 8, 9)],
        [f"00000000-0000-0000-0000-00000000000{number}" for number in (7, 8, 9)],
        lambda: {"own": models.UUIDField(primary_key=True)},
    ),
}


def make_model(kind: Kind, partition: str | None = None, name: str = "Tenanted") -> Any:
    """Return a model of this kind, with a JSON and a compact column."""
    meta = type("Meta", (), {"app_label": "testapp", "db_table": "tenanted"})
    members = {
        "__module__": __name__,
        "Meta": meta,
        "serial": models.IntegerField(default=0),
        **kind.columns(),
        "body": EncryptedTextField(partition=partition or kind.template, null=True),
        "code": EncryptedTextField(partition=partition or kind.template, null=True, record_format="compact"),
    }
    return type(name, (models.Model,), members)


def forget_model(model: Any) -> None:
    """Take a model out of the registry."""
    del apps.all_models["testapp"][model._meta.model_name]
    apps.clear_cache()


@contextmanager
def with_table(model: Any) -> Iterator[Any]:
    """Make a model's table for a while."""
    with connection.schema_editor() as editor:
        editor.create_model(model)
    try:
        yield model
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(model)
        forget_model(model)


def fill(model: Any, kind: Kind, rounds: int = 2) -> None:
    """Save a row for each tenant, ``rounds`` times."""
    if "{own}" in kind.template:
        rounds = 1
    for serial in range(rounds * len(kind.places)):
        place = kind.places[serial % len(kind.places)]
        model(serial=serial, body=f"body {serial}", code=f"code {serial}", **place).save(force_insert=True)


def texts(model: Any) -> list[tuple[int, str, str]]:
    """Return what the rows say, read as instances."""
    return sorted((row.serial, row.body, row.code) for row in model.objects.all())


def intact(count: int) -> list[tuple[int, str, str]]:
    """Return what :func:`texts` is while nothing is lost."""
    return [(serial, f"body {serial}", f"code {serial}") for serial in range(count)]


def key_id(partition: str) -> str:
    """Return the id of a partition's intermediate key."""
    return engine.get_session(partition).partition.intermediate_key_id


def clinics(count: int) -> list[Clinic]:
    """Return so many tenants."""
    return [Clinic.objects.create(name=str(number)) for number in range(count)]
