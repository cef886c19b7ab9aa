"""Rows that move to another tenant: every value goes along, sealed under the other's key, or nothing is written."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import FieldError
from django.db import IntegrityError, transaction

from django_asherah.exceptions import EncryptionError, PartitionMismatchError
from tests.fields.helpers import is_sealed_for, raw, record_of, refused, set_raw
from tests.testapp.models import Clinic, Patient
from tests.testapp.tenants import Member

pytestmark = pytest.mark.django_db

VALUES: dict[str, Any] = {"ssn": "900-12", "history": {"a": [1]}, "scan": b"\x00\xff"}
NAMES = tuple(VALUES)


@pytest.fixture
def patient(north: Clinic) -> Patient:
    """A row of the north as it was saved, and never read."""
    made = Patient.objects.create(clinic=north, name="n", remark="r", **VALUES)
    return Patient.objects.get(pk=made.pk)


def records(instance: Any, names: tuple[str, ...] = NAMES) -> list[Any]:
    return [record_of(instance, name) for name in names]


def assert_belongs(patient: Patient, clinic: Clinic, **changed: Any) -> None:
    """The row is this clinic's by now, all of its records are, and they open with the values."""
    loaded = Patient.objects.get(pk=patient.pk)
    assert loaded.clinic_id == clinic.pk
    assert [is_sealed_for(patient, name, f"clinic-{clinic.pk}") for name in NAMES] == [True, True, True]
    assert {name: getattr(loaded, name) for name in NAMES} == {**VALUES, **changed}


def read_some(patient: Patient) -> None:
    assert patient.ssn == VALUES["ssn"]


def read_all(patient: Patient) -> None:
    assert {name: getattr(patient, name) for name in NAMES} == VALUES


HELD: dict[str, Callable[[Patient], Any]] = {
    "unread": lambda patient: patient,
    "partly read": lambda patient: read_some(patient) or patient,  # type: ignore[func-returns-value]
    "read": lambda patient: read_all(patient) or patient,  # type: ignore[func-returns-value]
    "from a pickle": lambda patient: pickle.loads(pickle.dumps(patient)),
    "copied": copy.copy,
    "copied deeply": copy.deepcopy,
    "of an iterator": lambda patient: next(Patient.objects.filter(pk=patient.pk).iterator()),
    "of raw SQL": lambda patient: Patient.objects.raw("SELECT * FROM testapp_tenants_patient")[0],
    "of a union": lambda patient: Patient.objects.all().union(Patient.objects.all())[0],
    "with its clinic": lambda patient: Patient.objects.select_related("clinic").get(pk=patient.pk),
    "of in_bulk": lambda patient: Patient.objects.in_bulk()[patient.pk],
    "as it was made": lambda patient: Patient.objects.create(clinic=patient.clinic, **VALUES),
    "refreshed": lambda patient: patient.refresh_from_db() or patient,  # type: ignore[func-returns-value]
}


class TestSave:
    @pytest.mark.parametrize("held", HELD)
    def test_every_value_goes_along(self, patient: Patient, south: Clinic, held: str) -> None:
        moved = HELD[held](patient)
        moved.clinic = south
        moved.save()
        assert_belongs(moved, south)
        assert {name: getattr(moved, name) for name in NAMES} == VALUES

    @pytest.mark.parametrize("held", ["unread", "partly read", "read"])
    def test_there_and_back_between_saves(self, patient: Patient, north: Clinic, south: Clinic, held: str) -> None:
        HELD[held](patient)
        for clinic in (south, north, south):
            patient.clinic = clinic
            patient.save()
            assert_belongs(patient, clinic)

    def test_there_and_back_before_the_save_writes_the_records_as_they_are(
        self, patient: Patient, north: Clinic, south: Clinic
    ) -> None:
        before = records(patient)
        patient.clinic = south
        patient.clinic = north
        patient.save()
        assert records(patient) == before

    def test_the_value_is_readable_between_the_move_and_the_save(self, patient: Patient, south: Clinic) -> None:
        patient.clinic = south
        read_all(patient)
        patient.save()
        assert_belongs(patient, south)

    def test_a_value_that_changes_with_the_move(self, patient: Patient, south: Clinic) -> None:
        patient.clinic = south
        patient.ssn = "new"
        patient.history["b"] = 2
        patient.save()
        assert_belongs(patient, south, ssn="new", history={"a": [1], "b": 2})

    def test_a_column_of_one_partition_for_all_stays_as_it_is(self, patient: Patient, south: Clinic) -> None:
        before = raw(patient, "remark")
        patient.clinic = south
        patient.save()
        assert raw(patient, "remark") == before

    def test_the_same_tenant_by_another_spelling_is_no_move(self, patient: Patient, north: Clinic) -> None:
        before = records(patient)
        patient.clinic_id = str(north.pk)
        patient.save()
        assert records(patient) == before

    def test_to_no_tenant_is_refused(self, patient: Patient, north: Clinic) -> None:
        patient.clinic = None
        with refused(EncryptionError, r"needs 'clinic_id', which is None: set it before the row is saved"):
            patient.save()
        assert_belongs(patient_again(patient), north)

    def test_async(self, patient: Patient, south: Clinic) -> None:
        async def work() -> None:
            moved = await Patient.objects.aget(pk=patient.pk)
            moved.clinic = south
            await moved.asave()
            assert moved.ssn == VALUES["ssn"]

        async_to_sync(work)()
        assert_belongs(patient, south)

    def test_locked_rows(self, patient: Patient, south: Clinic) -> None:
        with transaction.atomic():
            moved = Patient.objects.select_for_update().get(pk=patient.pk)
            moved.clinic = south
            moved.save()
        assert_belongs(patient, south)

    def test_a_record_that_does_not_open_keeps_its_row_where_it_is(self, patient: Patient, south: Clinic) -> None:
        set_raw(patient, "ssn", raw(patient, "ssn")[:-9] + '"}')
        before = records(patient)
        moved = patient_again(patient)
        moved.clinic = south
        with refused(Exception, r"testapp\.Patient\.ssn"):
            moved.save()
        assert records(patient) == before
        assert patient_again(patient).clinic_id != south.pk


def patient_again(patient: Patient) -> Patient:
    return Patient.objects.get(pk=patient.pk)


class TestUpdateFields:
    WHOLE = ("clinic", *NAMES)

    @pytest.mark.parametrize("names", [WHOLE, ("clinic_id", *NAMES), ("name", *WHOLE)], ids=["name", "attname", "more"])
    def test_the_tenant_with_all_values(self, patient: Patient, south: Clinic, names: tuple[str, ...]) -> None:
        patient.clinic = south
        patient.save(update_fields=names)
        assert_belongs(patient, south)

    @pytest.mark.parametrize(
        "names", [("clinic",), ("clinic_id",), ("clinic", "ssn", "history"), ("ssn",), NAMES, ("clinic", "name")]
    )
    def test_a_part_is_refused(self, patient: Patient, north: Clinic, south: Clinic, names: tuple[str, ...]) -> None:
        before = records(patient)
        patient.clinic = south
        with refused(
            FieldError, r"'clinic' has changed, and with it the partition .* together, or save\(\) the whole row"
        ):
            patient.save(update_fields=names)
        assert records(patient) == before
        assert_belongs(patient_again(patient), north)
        patient.save()
        assert_belongs(patient, south)

    def test_other_columns_alone(self, patient: Patient, north: Clinic, south: Clinic) -> None:
        patient.clinic, patient.name = south, "new"
        patient.save(update_fields=["name"])
        assert_belongs(patient_again(patient), north)
        patient.save()
        assert_belongs(patient, south)

    def test_update_or_create_of_the_tenant_alone_takes_the_values_along(self, patient: Patient, south: Clinic) -> None:
        Patient.objects.update_or_create(pk=patient.pk, defaults={"clinic": south})
        assert_belongs(patient, south)

    def test_an_instance_that_was_not_loaded(self, patient: Patient, north: Clinic, south: Clinic) -> None:
        with refused(FieldError, "'clinic'"):
            Patient(pk=patient.pk, clinic=south).save(update_fields=["clinic"])
        assert_belongs(patient, north)

    def test_after_a_refresh_of_a_row_that_somebody_moved(self, patient: Patient, north: Clinic, south: Clinic) -> None:
        move(patient, south)
        patient.refresh_from_db()
        patient.clinic = north
        with refused(FieldError, "'clinic' has changed"):
            patient.save(update_fields=["clinic"])
        assert_belongs(patient_again(patient), south)


def move(patient: Patient, clinic: Clinic) -> None:
    """Move a row as somebody else would."""
    other = patient_again(patient)
    other.clinic = clinic
    other.save()


class TestPartlyLoaded:
    def test_without_the_values(self, patient: Patient, north: Clinic, south: Clinic) -> None:
        for names in (("ssn",), NAMES):
            moved = Patient.objects.defer(*names).get()
            moved.clinic = south
            with refused(FieldError, "'clinic' has changed, and with it the partition"):
                moved.save()
            assert_belongs(patient, north)

    def test_a_value_that_was_left_out_is_loaded_first(self, patient: Patient, south: Clinic) -> None:
        moved = Patient.objects.defer("ssn").get()
        moved.clinic = south
        assert moved.ssn == VALUES["ssn"]
        moved.save()
        assert_belongs(patient, south)

    def test_other_columns_alone(self, patient: Patient, north: Clinic) -> None:
        before = records(patient)
        for names in (("name",), ("ssn",), ("name", "clinic"), ("scan", "name")):
            changed = Patient.objects.only(*names).get()
            changed.name = "new"
            changed.save()
        assert records(patient) == before
        assert_belongs(patient, north)

    def test_a_compact_value_without_the_tenant(self, patient: Patient, north: Clinic, south: Clinic) -> None:
        moved = Patient.objects.only("scan").get()
        moved.clinic_id = south.pk
        with refused(FieldError, r"testapp\.Patient\.ssn: 'clinic' has changed"):
            moved.save()
        assert_belongs(patient, north)

    @pytest.mark.parametrize("names", [("name",), ("ssn",), ("ssn", "history")], ids=" ".join)
    @pytest.mark.parametrize("is_read", [False, True], ids=["not loaded", "loaded later"])
    def test_without_the_tenant(
        self, patient: Patient, north: Clinic, south: Clinic, names: tuple[str, ...], is_read: bool
    ) -> None:
        moved = Patient.objects.only(*names).get()
        if is_read:
            assert moved.clinic_id == north.pk
        moved.clinic_id = south.pk
        with suppress(FieldError, PartitionMismatchError), transaction.atomic():
            moved.save()
        loaded = patient_again(patient)
        assert {name: getattr(loaded, name) for name in NAMES} == VALUES

    def test_the_tenant_that_was_left_out_is_not_needed_to_read(self, patient: Patient) -> None:
        loaded = Patient.objects.defer("clinic").get()
        assert {name: getattr(loaded, name) for name in NAMES} == VALUES


class TestFailure:
    def test_after_a_failed_save(self, patient: Patient, north: Clinic, south: Clinic) -> None:
        member = Member.objects.create(tenant="a", name="1", secret="s", photo=b"p")
        Member.objects.create(tenant="b", name="taken")
        moved = Member.objects.get(pk=member.pk)
        moved.tenant, moved.name = "b", "taken"
        with refused(IntegrityError, "(?i)name|unique|duplicate"):
            moved.save()
        assert (moved.secret, moved.photo) == ("s", b"p")
        assert Member.objects.get(pk=member.pk).secret == "s"
        moved.name = "free"
        moved.save()
        assert is_sealed_for(member, "secret", "member-b")
        assert (Member.objects.get(pk=member.pk).photo, moved.photo) == (b"p", b"p")

    @pytest.mark.parametrize("held", ["unread", "partly read", "read"])
    @pytest.mark.parametrize("stays", [True, False], ids=["back", "again"])
    def test_in_a_transaction_that_is_rolled_back(
        self, patient: Patient, north: Clinic, south: Clinic, held: str, stays: bool
    ) -> None:
        HELD[held](patient)
        with suppress(ZeroDivisionError), transaction.atomic():
            patient.clinic = south
            patient.save()
            raise ZeroDivisionError
        assert_belongs(patient_again(patient), north)
        read_all(patient)
        patient.clinic = north if stays else south
        patient.save()
        assert_belongs(patient, patient.clinic)
