"""Django REST framework."""

from __future__ import annotations

import pytest
from rest_framework.fields import CharField, JSONField
from rest_framework.test import APIClient

from tests.ecosystem.suite.models import Patient
from tests.ecosystem.suite.urls import PatientSerializer
from tests.fields.helpers import opened

pytestmark = pytest.mark.django_db


@pytest.fixture
def client() -> APIClient:
    return APIClient()


def test_a_model_serializer_has_the_plain_fields() -> None:
    fields = PatientSerializer().fields
    assert (type(fields["secret"]), type(fields["doc"])) == (CharField, JSONField)
    assert fields["secret"].max_length == 20


def test_create_read_change_and_delete(client: APIClient) -> None:
    made = client.post("/api/patients/", {"secret": "s", "doc": {"a": [1]}}, format="json")
    assert made.status_code == 201, made.content
    patient = Patient.objects.get()
    assert (opened(patient, "secret"), opened(patient, "doc")) == (b"s", b'{"a":[1]}')
    url = f"/api/patients/{patient.pk}/"
    assert client.get(url).json() == {"id": patient.pk, "name": "", "secret": "s", "doc": {"a": [1]}}
    assert client.patch(url, {"secret": "t"}, format="json").json()["secret"] == "t"
    assert opened(patient, "secret") == b"t"
    assert client.delete(url).status_code == 204


def test_validation_is_the_plain_fields(client: APIClient) -> None:
    errors = client.post("/api/patients/", {"secret": "x" * 21}, format="json").json()
    assert errors == {"secret": ["Ensure this field has no more than 20 characters."]}


def test_the_browsable_pages_show_values_and_forms(client: APIClient) -> None:
    patient = Patient.objects.create(secret="shown", doc={"a": 1})
    page = client.get(f"/api/patients/{patient.pk}/", HTTP_ACCEPT="text/html").content.decode()
    assert ">\nshown</textarea>" in page or ">shown</textarea>" in page
    assert "_IK_default" not in page


def test_ordering_by_what_is_named_alone(client: APIClient) -> None:
    Patient.objects.create(secret="s")
    assert client.get("/api/patients/?ordering=secret").status_code == 200  # Ignored: ordering_fields doesn't name it.
