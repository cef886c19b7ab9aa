"""What the how-to ``one-key-per-tenant.md`` and the limitations say of rows that say their partition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import FieldError
from django.db import connection, models
from django.test.utils import CaptureQueriesContext, isolate_apps

from django_asherah.exceptions import EncryptionError, PartitionMismatchError
from django_asherah.fields import EncryptedQuerySet, EncryptedTextField
from tests.fields.helpers import raw
from tests.testapp.models import Clinic, Patient
from tests.testapp.tenants import Member

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def north() -> Clinic:
    return Clinic.objects.create(name="North")


@pytest.fixture
def south() -> Clinic:
    return Clinic.objects.create(name="South")


@pytest.fixture
def zoe(north: Clinic) -> Patient:
    return Patient.objects.create(clinic=north, ssn="900", history={"a": 1}, scan=b"s")


def load(patient: Patient) -> Patient:
    return Patient.objects.get(pk=patient.pk)


def test_each_clinics_records_name_its_own_key(zoe: Patient, south: Clinic) -> None:
    other = Patient.objects.create(clinic=south, ssn="901")
    assert f'"_IK_clinic-{zoe.clinic_id}_' in raw(zoe, "ssn")
    assert f'"_IK_clinic-{south.pk}_' in raw(other, "ssn")


class TestWrites:
    def test_a_row_without_a_clinic_is_an_error_and_stores_nothing(self) -> None:
        with pytest.raises(
            EncryptionError, match=r"^testapp\.Patient\.ssn: .* needs 'clinic_id', which is None: set it"
        ):
            Patient.objects.create(ssn="900")
        assert Patient.objects.count() == 0

    @pytest.mark.parametrize(("tenant", "reason"), [("", "which is empty"), ("x" * 250, "choose a shorter partition")])
    def test_a_tenant_that_makes_no_key_id_is_an_error_and_stores_nothing(self, tenant: str, reason: str) -> None:
        with pytest.raises(EncryptionError, match=rf"^testapp\.Member\.secret: .*{reason}"):
            Member.objects.create(tenant=tenant, secret="900")
        assert Member.objects.count() == 0

    def test_an_update_of_a_value_is_refused(self, zoe: Patient) -> None:
        with pytest.raises(FieldError, match=r"^testapp\.Patient\.ssn: .* no row is known\. Save instances"):
            Patient.objects.update(ssn="901")
        assert load(zoe).ssn == "900"

    def test_an_update_to_none_is_not(self, zoe: Patient) -> None:
        Patient.objects.update(ssn=None)
        assert load(zoe).ssn is None

    def test_djangos_bulk_update_is_refused_and_ours_works(self, zoe: Patient) -> None:
        zoe.ssn = "901"
        with pytest.raises(FieldError, match="EncryptedQuerySet"):
            Patient.objects.bulk_update([zoe], ["ssn"])
        EncryptedQuerySet(Patient).bulk_update([zoe], ["ssn"])
        assert load(zoe).ssn == "901"


class TestReads:
    def test_values_need_the_clinic_of_the_same_row(self, zoe: Patient) -> None:
        with pytest.raises(FieldError, match=r"select clinic_id of the same row"):
            list(Patient.objects.values_list("ssn", flat=True))
        assert list(Patient.objects.values_list("ssn", "clinic")) == [("900", zoe.clinic_id)]

    @pytest.mark.parametrize("name", ["ssn", "scan"])
    def test_values_of_rows_that_an_outer_join_does_not_find_are_none(
        self, zoe: Patient, south: Clinic, name: str
    ) -> None:
        rows = Clinic.objects.order_by("pk").values_list("patient__clinic_id", f"patient__{name}")
        assert list(rows) == [(zoe.clinic_id, getattr(load(zoe), name)), (None, None)]

    @pytest.mark.parametrize(("names", "queries"), [(["ssn"], 2), (["clinic", "ssn"], 1)])
    def test_only_without_the_clinic_costs_a_query_more_and_reading_none(
        self, zoe: Patient, north: Clinic, names: list[str], queries: int
    ) -> None:
        Patient.objects.create(clinic=north, ssn="901")
        list(Patient.objects.all())  # From here on the key is cached, wherever it was made.
        with CaptureQueriesContext(connection) as sent:
            patients = list(Patient.objects.only(*names).order_by("pk"))
        assert len(sent) == queries
        with CaptureQueriesContext(connection) as sent:
            assert [patient.ssn for patient in patients] == ["900", "901"]
        assert len(sent) == 0

    def test_an_event_loop_reads_either(self, zoe: Patient) -> None:
        async def read(*names: str) -> Any:
            return (await Patient.objects.only(*names).aget()).ssn

        assert async_to_sync(read)("clinic", "ssn") == "900"
        assert async_to_sync(read)("ssn") == "900"

    def test_raw_without_the_clinic_costs_a_query_when_the_value_is_read(self, zoe: Patient) -> None:
        (patient,) = Patient.objects.raw("SELECT id, ssn FROM testapp_tenants_patient")
        with CaptureQueriesContext(connection) as sent:
            assert patient.ssn == "900"
        assert len(sent) == 1


def _update(patient: Patient, clinic: Clinic) -> None:
    Patient.objects.filter(pk=patient.pk).update(clinic=clinic)


def _add(patient: Patient, clinic: Clinic) -> None:
    clinic.patient_set.add(patient)  # type: ignore[attr-defined]


def _bulk_update(patient: Patient, clinic: Clinic) -> None:
    patient.clinic = clinic
    Patient.objects.bulk_update([patient], ["clinic"])


class TestMoves:
    def test_every_value_is_sealed_anew(self, zoe: Patient, south: Clinic) -> None:
        moved = load(zoe)
        moved.clinic = south
        moved.save()
        assert f'"_IK_clinic-{south.pk}_' in raw(zoe, "ssn")
        assert (load(zoe).ssn, load(zoe).history, load(zoe).scan) == ("900", {"a": 1}, b"s")

    @pytest.mark.parametrize("names", [["clinic"], ["ssn"], ["clinic", "ssn"]])
    @pytest.mark.parametrize(
        "write",
        [
            lambda patient, names: patient.save(update_fields=names),
            lambda patient, names: EncryptedQuerySet(Patient).bulk_update([patient], names),
        ],
        ids=["save", "bulk_update"],
    )
    def test_half_of_one_is_refused(
        self, zoe: Patient, south: Clinic, write: Callable[[Patient, list[str]], Any], names: list[str]
    ) -> None:
        moved = load(zoe)
        moved.clinic = south
        with pytest.raises(FieldError, match="its value has to be sealed anew"):
            write(moved, names)
        assert (load(zoe).clinic_id, load(zoe).ssn) == (zoe.clinic_id, "900")

    def test_a_whole_one_by_bulk_update(self, zoe: Patient, south: Clinic) -> None:
        moved = load(zoe)
        moved.clinic = south
        EncryptedQuerySet(Patient).bulk_update([moved], ["clinic", "ssn", "history", "scan"])
        assert (load(zoe).clinic_id, load(zoe).ssn) == (south.pk, "900")

    @pytest.mark.parametrize("move", [_update, _add, _bulk_update])
    def test_what_moves_a_row_without_its_values_leaves_them_unreadable_and_loses_none(
        self, zoe: Patient, south: Clinic, move: Callable[[Patient, Clinic], None]
    ) -> None:
        record, home = raw(zoe, "ssn"), zoe.clinic_id
        move(load(zoe), south)
        with pytest.raises(PartitionMismatchError, match=rf"^testapp\.Patient\.ssn pk={zoe.pk}: "):
            _ = load(zoe).ssn
        load(zoe).save()
        assert raw(zoe, "ssn") == record
        Patient.objects.update(clinic=home)
        assert load(zoe).ssn == "900"

    def test_adding_to_a_clinic_one_by_one_seals_anew(self, zoe: Patient, south: Clinic) -> None:
        south.patient_set.add(load(zoe), bulk=False)  # type: ignore[attr-defined]
        assert (load(zoe).clinic_id, load(zoe).ssn) == (south.pk, "900")


def test_a_history_may_hold_a_copy_of_the_foreign_key_that_could_be_null() -> None:
    with isolate_apps("tests.testapp"):

        class HistoricalPatient(models.Model):
            clinic = models.ForeignKey(
                Clinic, models.DO_NOTHING, null=True, blank=True, db_constraint=False, related_name="+"
            )
            ssn = EncryptedTextField(partition="clinic-{clinic_id}")

            class Meta:
                app_label = "testapp"

        assert HistoricalPatient._meta.get_field("ssn").check() == []
