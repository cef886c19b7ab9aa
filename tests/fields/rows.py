"""Rows of every model with encrypted columns, and what the database holds of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import models

from tests.fields.helpers import raw
from tests.fields.test_types import NAMES, other
from tests.testapp.models import Child, Clinic, Compact, Document, Note, Parent, Patient, Typed


def encrypted_names(model: type[models.Model]) -> list[str]:
    return [field.attname for field in model._meta.concrete_fields if type(field).__name__.startswith("Encrypted")]


def records(instance: models.Model) -> dict[str, Any]:
    """Return what the database holds of an instance's encrypted columns."""
    return {name: raw(instance, name) for name in encrypted_names(type(instance))}


def _make_typed() -> None:
    Typed.objects.create(**{name: other(name) for name in NAMES})


def _make_patient() -> None:
    Patient.objects.create(clinic=Clinic.objects.create(), ssn="1", history={"a": []}, scan=b"\0", remark="r")


MAKES: dict[Any, Callable[[], Any]] = {
    Note: lambda: Note.objects.create(title="t", body="x", other_body="y"),
    Document: lambda: Document.objects.create(doc={"a": [1]}, encoded=[2]),
    Compact: lambda: Compact.objects.create(body="x", doc=[1], apart="a", json_bytes="j", plain="p"),
    Typed: _make_typed,
    Child: lambda: Child.objects.create(secret="s", child_secret="c"),
    Parent: lambda: Parent.objects.create(secret="s"),
    Patient: _make_patient,
}


def copied(row: models.Model) -> models.Model:
    """Save a row under another primary key, as Django's documentation copies one."""
    row.pk = None if isinstance(row._meta.pk, models.AutoField) else row._meta.pk.get_default()
    row.id = None
    row._state.adding = True
    row.save()
    return row
