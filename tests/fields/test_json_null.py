"""JSON's null in a row that moves unread: it is sealed anew as it was, and never becomes NULL."""

from __future__ import annotations

import pytest
from django.db.models import JSONField, Value

from tests.fields.helpers import opened, raw
from tests.testapp.models import Clinic, Document, Patient

pytestmark = pytest.mark.django_db


def test_it_moves_as_it_was() -> None:
    north, south = Clinic.objects.create(), Clinic.objects.create()
    patient = Patient.objects.create(clinic=north, history=Value(None, JSONField()))
    moved = Patient.objects.get()
    moved.clinic = south
    moved.save()
    assert f"clinic-{south.pk}_" in raw(patient, "history")
    assert Patient.objects.get().history is None


def test_it_is_written_back_unread_as_it_was() -> None:
    document = Document.objects.create(doc=Value(None, JSONField()))
    Document.objects.get().save()
    assert opened(document, "doc") == b"null"
