"""Re-encrypt and verify over tables with every kind of primary key, and over one that Django does not manage."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.apps import apps
from django.db import connection, models

from django_asherah import lifecycle
from django_asherah.fields import EncryptedTextField
from django_asherah.lifecycle.reencryption import Options

pytestmark = pytest.mark.django_db(transaction=True)

COUNT = 7
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
KINDS: dict[str, tuple[Callable[[], dict[str, models.Field[Any, Any]]], Callable[[int], dict[str, Any]]]] = {
    "text": (lambda: {"key": models.CharField(primary_key=True, max_length=20)}, lambda n: {"key": f"ü'{n}\\"}),
    "decimal": (
        lambda: {"key": models.DecimalField(primary_key=True, max_digits=9, decimal_places=3)},
        lambda n: {"key": Decimal(n) - Decimal("3.125")},
    ),
    "moment": (
        lambda: {"key": models.DateTimeField(primary_key=True)},
        lambda n: {"key": NOON + timedelta(microseconds=n)},
    ),
    "uuid": (lambda: {"key": models.UUIDField(primary_key=True)}, lambda n: {"key": uuid.UUID(int=n << 96)}),
    "negative": (lambda: {"key": models.IntegerField(primary_key=True)}, lambda n: {"key": n - 3}),
    "composite": (
        lambda: {
            "pk": models.CompositePrimaryKey("tenant", "number"),
            "tenant": models.CharField(max_length=20),
            "number": models.IntegerField(),
        },
        lambda n: {"tenant": f"t{n % 2}", "number": n},
    ),
}


@pytest.fixture(
    params=[*((kind, True) for kind in KINDS), ("text", False)], ids=lambda param: "-".join(map(str, param))
)
def keyed(request: pytest.FixtureRequest, transactional_db: None) -> Iterator[Any]:
    """A model with such a primary key, its table, and rows."""
    kind, managed = request.param
    make_fields, make_key = KINDS[kind]
    meta = type("Meta", (), {"app_label": "testapp", "db_table": "keyed in a way", "managed": managed})
    members = {"__module__": __name__, "Meta": meta, **make_fields(), "body": EncryptedTextField()}
    model: Any = type("Keyed", (models.Model,), members)
    model._meta.managed = True  # The schema editor makes no other tables.
    with connection.schema_editor() as editor:
        editor.create_model(model)
    model._meta.managed = managed
    try:
        model.objects.bulk_create(model(**make_key(n), body=f"body {n}") for n in range(COUNT))
        yield model
    finally:
        with connection.schema_editor() as editor:
            model._meta.managed = True
            editor.delete_model(model)
        del apps.all_models["testapp"]["keyed"]
        apps.clear_cache()


def bodies(model: Any) -> list[str]:
    return sorted(row.body for row in model.objects.all())


def test_every_value_is_rewritten_once_and_says_the_same(keyed: Any) -> None:
    lifecycle.rotate()
    report = lifecycle.reencrypt(["testapp.Keyed"], options=Options(batch=2))
    assert (report.rewritten, report.bad.total) == ({"testapp.Keyed.body": COUNT}, 0)
    assert bodies(keyed) == [f"body {n}" for n in range(COUNT)]
    assert lifecycle.reencrypt(["testapp.Keyed"]).current == {"testapp.Keyed.body": COUNT}


def test_shards_share_the_rows_out(keyed: Any) -> None:
    lifecycle.rotate()
    reports = [lifecycle.reencrypt(["testapp.Keyed"], options=Options(shard=k, shards=2, batch=2)) for k in range(2)]
    assert sum(report.rewritten["testapp.Keyed.body"] for report in reports) == COUNT
    assert bodies(keyed) == [f"body {n}" for n in range(COUNT)]


def test_every_value_is_verified(keyed: Any) -> None:
    report = lifecycle.verify_data(["testapp.Keyed"])
    assert (report.columns, report.bad.total) == ({"testapp.Keyed.body": COUNT}, 0)
