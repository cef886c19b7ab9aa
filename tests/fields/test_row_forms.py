"""Model forms and the admin, over rows that say their partition."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from django import forms
from django.contrib import admin
from django.db import connection
from django.forms import inlineformset_factory, modelformset_factory
from django.test import Client
from django.urls import path

from django_asherah.admin import EncryptedFieldsAdminMixin
from tests.fields.helpers import is_sealed_for, record_of
from tests.testapp.models import Clinic, Patient

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

VALUES: dict[str, Any] = {"ssn": "900-12", "history": {"a": [1]}, "scan": b"\x00\xff"}
NAMES = tuple(VALUES)
MARK = "⚠ could not be decrypted"

site = admin.AdminSite("rows")


class PatientInline(EncryptedFieldsAdminMixin, admin.TabularInline):  # type: ignore[type-arg]
    model = Patient
    extra = 0


@admin.register(Clinic, site=site)
class ClinicAdmin(EncryptedFieldsAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    inlines = (PatientInline,)


@admin.register(Patient, site=site)
class PatientAdmin(EncryptedFieldsAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("id", "name", "clinic", "ssn")
    list_editable = ("clinic", "ssn")


urlpatterns = [path("rows/", site.urls)]
PATIENTS = "/rows/testapp/patient/"


class PatientForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Patient
        fields = ("clinic", "ssn", "history")


class MoveForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Patient
        fields = ("clinic",)


@pytest.fixture
def patient(north: Clinic) -> Patient:
    return Patient.objects.create(clinic=north, name="n", **VALUES)


def assert_belongs(patient: Patient, clinic: Clinic, **changed: Any) -> None:
    loaded = Patient.objects.get(pk=patient.pk)
    assert loaded.clinic_id == clinic.pk
    assert {name: getattr(loaded, name) for name in NAMES} == {**VALUES, **changed}
    assert [is_sealed_for(patient, name, f"clinic-{clinic.pk}") for name in NAMES] == [True] * 3


def swap_records(one: Patient, two: Patient) -> None:
    records = record_of(one, "ssn"), record_of(two, "ssn")
    with connection.cursor() as cursor:
        for row, record in zip((two, one), records, strict=True):
            cursor.execute("UPDATE testapp_tenants_patient SET ssn = %s WHERE id = %s", [record, row.pk])


class TestForms:
    def test_create(self, north: Clinic, south: Clinic) -> None:
        form = PatientForm({"clinic": south.pk, "ssn": "900-12", "history": '{"a": [1]}'})
        assert form.is_valid(), form.errors
        form.save()
        made = Patient.objects.get()
        assert (made.ssn, made.history) == (VALUES["ssn"], VALUES["history"])
        assert is_sealed_for(made, "ssn", f"clinic-{south.pk}")

    def test_edit(self, patient: Patient, north: Clinic) -> None:
        loaded = Patient.objects.get()
        form = PatientForm({"clinic": north.pk, "ssn": "new", "history": '{"a": [1]}'}, instance=loaded)
        assert form.initial["ssn"] == VALUES["ssn"]
        form.save()
        assert_belongs(patient, north, ssn="new")

    def test_move_with_the_values(self, patient: Patient, south: Clinic) -> None:
        form = PatientForm({"clinic": south.pk, "ssn": "new", "history": "[2]"}, instance=Patient.objects.get())
        form.save()
        assert_belongs(patient, south, ssn="new", history=[2])

    def test_move_alone(self, patient: Patient, south: Clinic) -> None:
        form = MoveForm({"clinic": south.pk}, instance=Patient.objects.get())
        form.save()
        assert_belongs(patient, south)

    def test_a_move_that_is_not_valid_writes_nothing(self, patient: Patient, north: Clinic, south: Clinic) -> None:
        form = PatientForm({"clinic": south.pk, "ssn": "new", "history": "{"}, instance=Patient.objects.get())
        assert not form.is_valid()
        assert_belongs(patient, north)

    def test_a_row_without_its_tenant(self) -> None:
        form = PatientForm({"clinic": "", "ssn": "s", "history": "[2]"})
        assert form.errors == {"clinic": ["This field is required."]}

    def test_formsets(self, patient: Patient, north: Clinic, south: Clinic) -> None:
        made = modelformset_factory(Patient, PatientForm, extra=1)
        data = {
            "form-TOTAL_FORMS": "2", "form-INITIAL_FORMS": "1",
            "form-0-id": patient.pk, "form-0-clinic": south.pk, "form-0-ssn": "900-12", "form-0-history": '{"a": [1]}',
            "form-1-clinic": north.pk, "form-1-ssn": "added", "form-1-history": "[2]",
        }  # fmt: skip
        formset = made(data, queryset=Patient.objects.all())
        assert formset.is_valid(), formset.errors
        formset.save()
        assert_belongs(patient, south)
        assert Patient.objects.get(clinic=north).ssn == "added"

    def test_inline_formsets(self, patient: Patient, north: Clinic) -> None:
        made = inlineformset_factory(Clinic, Patient, fields=("ssn",), extra=1)
        data = {
            "patient_set-TOTAL_FORMS": "2", "patient_set-INITIAL_FORMS": "1",
            "patient_set-0-id": patient.pk, "patient_set-0-clinic": north.pk, "patient_set-0-ssn": "new",
            "patient_set-1-clinic": north.pk, "patient_set-1-ssn": "added",
        }  # fmt: skip
        formset = made(data, instance=north)
        assert formset.is_valid(), formset.errors
        formset.save()
        assert_belongs(patient, north, ssn="new")
        assert sorted(row.ssn or "" for row in north.patient_set.all()) == ["added", "new"]


class TestAdmin:
    FORM: ClassVar[dict[str, Any]] = {"name": "n", "ssn": "900-12", "history": '{"a": [1]}', "remark": "r"}

    def test_the_list(self, admin_client: Client, patient: Patient, south: Clinic) -> None:
        Patient.objects.create(clinic=south, ssn="of the south")
        page = admin_client.get(PATIENTS).content.decode()
        assert "900-12" in page
        assert "of the south" in page
        assert MARK not in page

    def test_one_record_of_another_tenant_in_the_list(
        self, admin_client: Client, patient: Patient, south: Clinic
    ) -> None:
        swap_records(patient, Patient.objects.create(clinic=south, ssn="of the south"))
        page = admin_client.get(PATIENTS).content.decode()
        assert MARK in page
        assert "900-12" not in page
        assert "of the south" not in page

    def test_add(self, admin_client: Client, south: Clinic) -> None:
        assert admin_client.post(f"{PATIENTS}add/", {**self.FORM, "clinic": south.pk}).status_code == 302
        made = Patient.objects.get()
        assert (made.ssn, made.history) == ("900-12", {"a": [1]})
        assert is_sealed_for(made, "ssn", f"clinic-{south.pk}")

    def test_change_and_move(self, admin_client: Client, patient: Patient, north: Clinic, south: Clinic) -> None:
        url = f"{PATIENTS}{patient.pk}/change/"
        assert "900-12" in admin_client.get(url).content.decode()
        assert admin_client.post(url, {**self.FORM, "clinic": north.pk, "ssn": "new"}).status_code == 302
        assert_belongs(patient, north, ssn="new")
        assert admin_client.post(url, {**self.FORM, "clinic": south.pk}).status_code == 302
        assert_belongs(patient, south)

    def test_a_move_in_the_list(self, admin_client: Client, patient: Patient, south: Clinic) -> None:
        data = {
            "form-TOTAL_FORMS": "1", "form-INITIAL_FORMS": "1", "form-0-id": patient.pk,
            "form-0-clinic": south.pk, "form-0-ssn": "900-12", "_save": "Save",
        }  # fmt: skip
        assert admin_client.post(PATIENTS, data).status_code == 302
        assert_belongs(patient, south)

    def test_the_inline(self, admin_client: Client, patient: Patient, north: Clinic) -> None:
        url = f"/rows/testapp/clinic/{north.pk}/change/"
        assert "900-12" in admin_client.get(url).content.decode()
        data = {
            "name": "north", "patient_set-TOTAL_FORMS": "2", "patient_set-INITIAL_FORMS": "1",
            "patient_set-0-id": patient.pk, "patient_set-0-clinic": north.pk, "patient_set-0-name": "n",
            "patient_set-0-ssn": "new", "patient_set-0-history": '{"a": [1]}', "patient_set-0-remark": "r",
            "patient_set-1-clinic": north.pk, "patient_set-1-name": "added", "patient_set-1-ssn": "s",
            "patient_set-1-history": "[2]", "patient_set-1-remark": "r",
        }  # fmt: skip
        answer = admin_client.post(url, data)
        assert answer.status_code == 302, answer.context["errors"]
        assert_belongs(patient, north, ssn="new")
        assert Patient.objects.get(name="added").ssn == "s"

    @pytest.mark.parametrize("target", ["north", "south"])
    def test_a_row_with_another_tenants_record(
        self, request: pytest.FixtureRequest, admin_client: Client, patient: Patient, south: Clinic, target: str
    ) -> None:
        """It is shown with a mark, a save keeps the record, and the row does not move with it."""
        swap_records(patient, Patient.objects.create(clinic=south, ssn="of the south"))
        before = record_of(patient, "ssn")
        url = f"{PATIENTS}{patient.pk}/change/"
        page = admin_client.get(url).content.decode()
        assert MARK in page
        assert "of the south" not in page
        form = {**self.FORM, "clinic": request.getfixturevalue(target).pk, "ssn": "typed"}
        answer = admin_client.post(url, form)
        assert record_of(patient, "ssn") == before
        assert Patient.objects.get(pk=patient.pk).clinic_id == patient.clinic_id
        assert (answer.status_code == 302) is (target == "north")
        if target == "south":
            assert "so its row can&#x27;t be moved" in answer.content.decode()
