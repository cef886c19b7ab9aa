"""New rows that say their partition: whatever makes them, each record is its own row's tenant's."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import FieldError
from django.db import connection
from django.db.models import Value

from django_asherah.exceptions import EncryptionError
from django_asherah.fields import EncryptedTextField
from tests.fields.helpers import is_sealed_for, record_of, refused
from tests.testapp.models import Clinic, Patient
from tests.testapp.tenants import Doctor, Invoice, Letter, Member, Offer, Staff, StaffProxy, Stay

pytestmark = pytest.mark.django_db

VALUES = {"ssn": "900-12", "history": {"a": [1]}, "scan": b"\x00\xff"}
NAMES = tuple(VALUES)


def assert_belongs(patient: Patient, clinic: Clinic, other: Clinic) -> None:
    """The stored records of all of its fields are this clinic's, and open in its row with the values."""
    for name in NAMES:
        assert is_sealed_for(patient, name, f"clinic-{clinic.pk}")
        assert not is_sealed_for(patient, name, f"clinic-{other.pk}")
    loaded = Patient.objects.get(pk=patient.pk)
    assert {name: getattr(loaded, name) for name in NAMES} == VALUES
    assert loaded.clinic_id == clinic.pk


class TestOne:
    def test_create(self, north: Clinic, south: Clinic) -> None:
        for clinic, other in ((north, south), (south, north)):
            patient = Patient.objects.create(clinic=clinic, **VALUES)
            assert {name: getattr(patient, name) for name in NAMES} == VALUES
            assert_belongs(patient, clinic, other)

    def test_save(self, north: Clinic, south: Clinic) -> None:
        patient = Patient(**VALUES)
        patient.clinic = south
        patient.save()
        assert_belongs(patient, south, north)

    def test_force_insert(self, north: Clinic, south: Clinic) -> None:
        patient = Patient(pk=77, clinic=south, **VALUES)
        patient.save(force_insert=True)
        assert_belongs(patient, south, north)

    def test_a_tenant_that_is_saved_after_it_was_assigned(self, north: Clinic) -> None:
        clinic = Clinic()
        patient = Patient(clinic=clinic, **VALUES)
        clinic.save()
        patient.save()
        assert_belongs(patient, clinic, north)

    def test_the_tenant_as_text_is_the_tenant(self, north: Clinic, south: Clinic) -> None:
        patient = Patient(clinic_id=f" {south.pk} ", **VALUES)
        patient.save()
        assert_belongs(patient, south, north)

    def test_a_relation_makes_it(self, north: Clinic, south: Clinic) -> None:
        assert_belongs(south.patient_set.create(**VALUES), south, north)

    def test_get_or_create(self, north: Clinic, south: Clinic) -> None:
        patient, made = Patient.objects.get_or_create(clinic=south, name="n", defaults=VALUES)
        assert made
        assert_belongs(patient, south, north)
        same, made = Patient.objects.get_or_create(clinic=south, name="n", defaults={"ssn": "other"})
        assert (same, made, same.ssn) == (patient, False, VALUES["ssn"])

    def test_get_or_create_by_the_value_is_refused(self, north: Clinic) -> None:
        with refused(FieldError, r"testapp\.Patient\.ssn is encrypted"):
            Patient.objects.get_or_create(clinic=north, ssn="x")
        assert not Patient.objects.exists()

    def test_update_or_create(self, north: Clinic, south: Clinic) -> None:
        patient, made = Patient.objects.update_or_create(clinic=south, name="n", defaults=VALUES)
        assert made
        assert_belongs(patient, south, north)
        patient, made = Patient.objects.update_or_create(clinic=south, name="n", defaults={"ssn": "new"})
        assert not made
        assert Patient.objects.get().ssn == "new"
        assert is_sealed_for(patient, "ssn", f"clinic-{south.pk}")

    def test_update_or_create_with_other_values_for_a_new_row(self, north: Clinic, south: Clinic) -> None:
        patient, _ = Patient.objects.update_or_create(
            name="n", defaults={"ssn": "old"}, create_defaults={"clinic": south, **VALUES}
        )
        assert_belongs(patient, south, north)

    def test_none_needs_no_partition_and_no_key(self) -> None:
        member = Member.objects.create(tenant="", secret=None)
        assert record_of(member, "secret") is None
        assert Member.objects.get().secret is None

    def test_async(self, north: Clinic, south: Clinic) -> None:
        async def work() -> list[Patient]:
            made = await Patient.objects.acreate(clinic=north, **VALUES)
            saved = Patient(clinic=north, **VALUES)
            await saved.asave()
            got, _ = await Patient.objects.aget_or_create(clinic=north, name="g", defaults=VALUES)
            updated, _ = await Patient.objects.aupdate_or_create(clinic=north, name="u", defaults=VALUES)
            (many,) = await Patient.objects.abulk_create([Patient(clinic=north, **VALUES)])
            return [made, saved, got, updated, many]

        for patient in async_to_sync(work)():
            assert_belongs(patient, north, south)

    def test_an_expression_that_holds_a_value_is_refused(self, north: Clinic) -> None:
        value = Value("x", output_field=EncryptedTextField(partition="clinic-{clinic_id}"))
        with refused(
            FieldError, r"says its partition 'clinic-\{clinic_id\}', and here no row is known\. Save instances"
        ):
            Patient(clinic=north, ssn=value).save()
        assert not Patient.objects.exists()


class TestMany:
    def test_bulk_create_over_tenants(self, north: Clinic, south: Clinic) -> None:
        made = Patient.objects.bulk_create([Patient(clinic=clinic, **VALUES) for clinic in (north, south) * 5])
        for patient in Patient.objects.filter(pk__in=[each.pk for each in made]):
            assert_belongs(patient, *((north, south) if patient.clinic_id == north.pk else (south, north)))

    def test_in_batches(self, north: Clinic, south: Clinic) -> None:
        Patient.objects.bulk_create([Patient(clinic=clinic, **VALUES) for clinic in (north, south) * 5], batch_size=3)
        for patient in Patient.objects.all():
            assert_belongs(patient, *((north, south) if patient.clinic_id == north.pk else (south, north)))

    def test_with_and_without_primary_keys(self, north: Clinic, south: Clinic) -> None:
        Patient.objects.bulk_create([Patient(clinic=north, **VALUES), Patient(pk=99, clinic=south, **VALUES)])
        assert_belongs(Patient.objects.get(clinic=north), north, south)
        assert_belongs(Patient.objects.get(pk=99), south, north)

    def test_tenants_that_are_saved_after_they_were_assigned(self, north: Clinic) -> None:
        clinics = [Clinic(), Clinic()]
        patients = [Patient(clinic=clinic, **VALUES) for clinic in clinics]
        for clinic in clinics:
            clinic.save()
        Patient.objects.bulk_create(patients)
        for clinic in clinics:
            assert_belongs(Patient.objects.get(clinic=clinic), clinic, north)

    def test_rows_that_were_loaded_are_copied_to_another_tenant(self, north: Clinic, south: Clinic) -> None:
        Patient.objects.create(clinic=north, **VALUES)
        copy = Patient.objects.get()
        copy.pk, copy.clinic = None, south
        copy._state.adding = True
        Patient.objects.bulk_create([copy])
        assert_belongs(Patient.objects.get(clinic=south), south, north)

    def test_one_row_without_a_tenant_and_none_is_made(self, north: Clinic) -> None:
        with refused(
            EncryptionError, r"testapp\.Member\.secret: its partition 'member-\{tenant\}' needs 'tenant', which"
        ):
            Member.objects.bulk_create([Member(tenant="a", name="1", secret="s"), Member(tenant="", secret="t")])
        assert not Member.objects.exists()

    @pytest.mark.parametrize("count", [0, 1])
    def test_none_and_one(self, north: Clinic, south: Clinic, count: int) -> None:
        Patient.objects.bulk_create([Patient(clinic=south, **VALUES)] * count)
        assert Patient.objects.count() == count

    def test_ignored_conflicts_leave_rows_as_they_are(self) -> None:
        Member.objects.create(tenant="a", name="taken", secret="old")
        new = [Member(tenant="b", name="taken", secret="new"), Member(tenant="b", name="free", secret="free")]
        Member.objects.bulk_create(new, ignore_conflicts=True)
        found = Member.objects.order_by("name")
        assert [(each.tenant, each.name, each.secret) for each in found] == [
            ("b", "free", "free"),
            ("a", "taken", "old"),
        ]


class TestConflicts:
    """Of ``bulk_create(update_conflicts=True)``, where the row that stands may be another tenant's."""

    NAMES = ("secret", "spare", "photo")

    def insert(self, fields: list[str], **values: Any) -> None:
        unique = None if connection.vendor == "mysql" else ["name"]
        new = [Member(tenant="b", name="taken", **values), Member(tenant="b", name="free", secret="free")]
        Member.objects.bulk_create(new, update_conflicts=True, update_fields=fields, unique_fields=unique)

    def setup_method(self) -> None:
        self.old = {"secret": "old", "spare": "old spare", "photo": b"old photo"}

    def test_the_tenant_and_all_values_are_updated_together(self) -> None:
        Member.objects.create(tenant="a", name="taken", **self.old)
        self.insert(["tenant", *self.NAMES], secret="new", spare=None, photo=b"new")
        member = Member.objects.get(name="taken")
        assert (member.tenant, member.secret, member.spare, member.photo) == ("b", "new", None, b"new")
        assert Member.objects.get(name="free").secret == "free"

    def test_values_without_their_tenant_are_refused(self) -> None:
        member = Member.objects.create(tenant="a", name="taken", **self.old)
        with refused(FieldError, r"testapp\.Member\.secret: .*'tenant'"):
            self.insert(["secret"], secret="new")
        assert Member.objects.get(pk=member.pk).secret == "old"

    def test_the_tenant_without_its_values_is_refused(self) -> None:
        member = Member.objects.create(tenant="a", name="taken", **self.old)
        with refused(FieldError, r"testapp\.Member\.secret: .*'secret'"):
            self.insert(["tenant"], secret="new")
        assert Member.objects.get(pk=member.pk).secret == "old"

    def test_columns_that_say_nothing_may_be_updated_alone(self) -> None:
        member = Member.objects.create(tenant="a", name="taken", **self.old)
        self.insert(["name"], secret="new")
        assert Member.objects.get(pk=member.pk).secret == "old"


class TestInheritance:
    def test_a_child_in_a_table_of_its_own(self) -> None:
        doctor = Doctor.objects.create(site=1, unit=2, salary="s", licence="l")
        assert is_sealed_for(doctor, "salary", "site-1")
        assert is_sealed_for(doctor, "licence", "unit-2")
        loaded = Doctor.objects.get()
        assert (loaded.salary, loaded.licence, Staff.objects.get().salary) == ("s", "l", "s")
        assert Staff.objects.select_related("doctor").get().doctor.licence == "l"

    def test_a_child_is_added_to_a_parent(self) -> None:
        staff = Staff.objects.create(site=1, salary="s")
        doctor = Doctor(staff_ptr=staff, unit=2, licence="l")
        doctor.save_base(raw=True)
        doctor = Doctor.objects.get()
        assert (doctor.salary, doctor.licence) == ("s", "l")

    def test_a_proxy(self) -> None:
        staff = StaffProxy.objects.create(site=1, salary="s")
        assert is_sealed_for(staff, "salary", "site-1")
        assert (Staff.objects.get().salary, StaffProxy.objects.get().salary) == ("s", "s")
        (many,) = StaffProxy.objects.bulk_create([StaffProxy(site=2, salary="t")])
        assert is_sealed_for(StaffProxy.objects.get(site=2), "salary", "site-2")
        assert many.salary == "t"

    def test_two_models_of_an_abstract_base(self) -> None:
        for model in (Invoice, Offer):
            made = model.objects.create(tenant="a", secret=model.__name__)
            assert is_sealed_for(made, "secret", "books-a")
            assert model.objects.get().secret == model.__name__
            assert model._meta.get_field("secret").partition_fields == (model._meta.get_field("tenant"),)

    def test_a_composite_primary_key_that_says_it(self) -> None:
        stay = Stay.objects.create(house=1, number=2, secret="s")
        assert is_sealed_for(stay, "secret", "house-1")
        Stay.objects.bulk_create([Stay(house=house, number=9, secret=f"s{house}") for house in (1, 2, 3)])
        assert Stay.objects.get(pk=(1, 2)).secret == "s"
        assert [stay.secret for stay in Stay.objects.filter(number=9).order_by("house")] == ["s1", "s2", "s3"]

    def test_a_foreign_key_that_the_database_does_not_know(self) -> None:
        letter = Letter.objects.create(clinic_id=987654, number="n", text="t")
        assert is_sealed_for(letter, "text", "clinic-987654")
        assert Letter.objects.get().text == "t"
