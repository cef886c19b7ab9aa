"""Moves of rows whose partition is said otherwise than by a foreign key; copies of rows; other databases."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from django.core.exceptions import FieldError
from django.db.models import F, Subquery

from django_asherah.exceptions import EncryptionError, PartitionMismatchError
from tests.fields.helpers import is_sealed_for, record_of, refused
from tests.testapp.models import Clinic, Patient
from tests.testapp.tenants import Account, Bed, Doctor, Member, Staff, StaffProxy, Stay, Ticket

pytestmark = pytest.mark.django_db

VALUES: dict[str, Any] = {"ssn": "900-12", "history": {"a": [1]}, "scan": b"\x00\xff"}
NAMES = tuple(VALUES)
HELD: dict[str, Callable[[Any], Any]] = {
    "unread": lambda row: None,
    "read": lambda row: [getattr(row, field.attname) for field in row._meta.concrete_fields],
}


@pytest.fixture(params=HELD)
def hold(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Reads all of a row, or nothing."""
    return HELD[request.param]


class TestOtherColumns:
    def test_two_columns_and_either_moves_it(self, hold: Callable[[Any], Any]) -> None:
        Bed.objects.create(ward=Bed.Ward.NORTH, number=1, secret="s")
        for ward, number, partition in (
            (Bed.Ward.SOUTH, 1, "bed-south%20wing:1"),
            ("south wing", -2, "bed-south%20wing:-2"),
            ("north", "7", "bed-north:7"),
        ):
            bed = Bed.objects.get()
            hold(bed)
            bed.ward, bed.number = ward, number
            bed.save()
            assert is_sealed_for(bed, "secret", partition)
            assert Bed.objects.get().secret == "s"

    def test_a_part_of_two_columns_is_refused(self) -> None:
        bed = Bed.objects.create(ward="north", number=1, secret="s")
        bed.ward, bed.number = "south wing", 2
        for names in (["ward", "secret"], ["number", "secret"], ["ward", "number"], ["secret"]):
            with refused(FieldError, "Save 'ward', 'number', 'secret' together"):
                bed.save(update_fields=names)
        assert Bed.objects.get().secret == "s"
        bed.save(update_fields=["ward", "number", "secret"])
        assert Bed.objects.get().secret == "s"

    def test_a_uuid(self, hold: Callable[[Any], Any]) -> None:
        one, two = UUID(int=1), UUID(int=2**127 + 5)
        values = {"secret": "s", "born": date(2000, 2, 29), "score": -7, "notes": {"a": None}}
        Account.objects.create(owner=one, **values)
        account = Account.objects.get()
        hold(account)
        account.owner = str(two).upper()
        account.save()
        for name, value in values.items():
            assert is_sealed_for(account, name, f"owner-{two}")
            assert getattr(Account.objects.get(), name) == value

    def test_dates_truth_values_and_choices(self, hold: Callable[[Any], Any]) -> None:
        Ticket.objects.create(day=date(2026, 1, 1), by_day="d", by_payment="p", by_level="l")
        ticket = Ticket.objects.get()
        hold(ticket)
        ticket.day, ticket.is_paid, ticket.level = "2026-02-28", 1, Ticket.Level.LOW
        ticket.save()
        assert is_sealed_for(ticket, "by_day", "day-2026-02-28")
        assert is_sealed_for(ticket, "by_payment", "paid-True")
        assert is_sealed_for(ticket, "by_level", "level--1")
        ticket = Ticket.objects.get()
        assert (ticket.by_day, ticket.by_payment, ticket.by_level) == ("d", "p", "l")

    def test_each_field_moves_by_its_own_column_alone(self) -> None:
        ticket = Ticket.objects.create(day=date(2026, 1, 1), by_day="d", by_payment="p", by_level="l")
        before = [record_of(ticket, name) for name in ("by_day", "by_level")]
        ticket = Ticket.objects.get()
        ticket.is_paid = True
        ticket.save(update_fields=["is_paid", "by_payment"])
        assert [record_of(ticket, name) for name in ("by_day", "by_level")] == before
        assert Ticket.objects.get().by_payment == "p"

    def test_tables_of_parent_and_child_move_apart(self, hold: Callable[[Any], Any]) -> None:
        Doctor.objects.create(site=1, unit=2, salary="s", licence="l")
        for site, unit in ((3, 2), (3, 4), (5, 6)):
            doctor = Doctor.objects.get()
            hold(doctor)
            doctor.site, doctor.unit = site, unit
            doctor.save()
            assert is_sealed_for(doctor, "salary", f"site-{site}")
            assert is_sealed_for(doctor, "licence", f"unit-{unit}")
            assert (Doctor.objects.get().salary, Doctor.objects.get().licence) == ("s", "l")

    def test_the_parent_moves_by_itself(self, hold: Callable[[Any], Any]) -> None:
        Doctor.objects.create(site=1, unit=2, salary="s", licence="l")
        for model in (Staff, StaffProxy):
            staff = model.objects.get()
            hold(staff)
            staff.site += 10
            staff.save()
            assert (Doctor.objects.get().salary, Doctor.objects.get().licence) == ("s", "l")

    def test_a_composite_primary_key_makes_another_row(self, hold: Callable[[Any], Any]) -> None:
        Stay.objects.create(house=1, number=2, secret="s")
        stay = Stay.objects.get()
        hold(stay)
        stay.pk = (9, 2)
        stay.save()
        assert [(each.house, each.secret) for each in Stay.objects.order_by("house")] == [(1, "s"), (9, "s")]
        assert is_sealed_for(stay, "secret", "house-9")


class TestCopies:
    @pytest.fixture
    def patient(self, north: Clinic) -> Patient:
        return Patient.objects.get(pk=Patient.objects.create(clinic=north, **VALUES).pk)

    @pytest.mark.parametrize("is_adding", [True, False])
    def test_to_another_tenant(
        self, patient: Patient, north: Clinic, south: Clinic, hold: Callable[[Any], Any], is_adding: bool
    ) -> None:
        before = [record_of(patient, name) for name in NAMES]
        hold(patient)
        original = patient.pk
        patient.pk, patient.clinic = None, south
        patient._state.adding = is_adding
        patient.save()
        copied, kept = Patient.objects.get(pk=patient.pk), Patient.objects.get(pk=original)
        assert [record_of(kept, name) for name in NAMES] == before
        for row, clinic in ((copied, south), (kept, north)):
            assert row.clinic_id == clinic.pk
            assert [is_sealed_for(row, name, f"clinic-{clinic.pk}") for name in NAMES] == [True] * 3
            assert {name: getattr(row, name) for name in NAMES} == VALUES

    def test_within_a_tenant_writes_unread_records_as_they_are(self, patient: Patient) -> None:
        before = [record_of(patient, name) for name in NAMES]
        patient.pk = None
        patient._state.adding = True
        patient.save()
        assert [record_of(patient, name) for name in NAMES] == before
        assert {name: getattr(Patient.objects.get(pk=patient.pk), name) for name in NAMES} == VALUES


class TestExpressions:
    """Of the database's own: it copies records as they are, so only within a row, and only while that stays."""

    @pytest.fixture
    def member(self) -> Member:
        Member.objects.create(tenant="b", name="other", secret="of another", spare="spare of another")
        return Member.objects.create(tenant="a", name="1", secret="s", spare="t")

    def test_another_column_of_the_row(self, member: Member) -> None:
        member.secret = F("spare")
        member.save()
        assert Member.objects.get(pk=member.pk).secret == "t"
        member.refresh_from_db()
        assert member.secret == "t"
        Member.objects.update(spare=F("secret"))
        assert [each.spare for each in Member.objects.order_by("tenant")] == ["t", "of another"]

    def test_another_column_of_a_row_that_moves_is_refused(self, member: Member) -> None:
        member.tenant, member.secret = "b", F("spare")
        with refused(FieldError, r"testapp\.Member\.secret"):
            member.save()
        assert Member.objects.get(pk=member.pk).secret == "s"

    @pytest.mark.parametrize("way", ["update", "save", "bulk_update"])
    def test_another_row_is_refused(self, member: Member, way: str) -> None:
        other = Subquery(Member.objects.filter(name="other").values("secret")[:1])
        with refused(FieldError, r"testapp\.Member\.secret"):
            if way == "update":
                Member.objects.filter(pk=member.pk).update(secret=other)
            else:
                member.secret = other  # type: ignore[assignment]
                member.save() if way == "save" else Member.objects.bulk_update([member], ["secret"])
        assert Member.objects.get(pk=member.pk).secret == "s"


@pytest.mark.django_db(databases=["default", "other"], transaction=True)
class TestOtherDatabase:
    def test_a_row_is_saved_in_another_database_for_another_tenant(self, hold: Callable[[Any], Any]) -> None:
        Member.objects.create(tenant="a", name="1", secret="s", photo=b"p")
        member = Member.objects.get()
        hold(member)
        member.tenant = "b"
        member.save(using="other", force_insert=True)
        assert is_sealed_for(member, "secret", "member-b")
        assert is_sealed_for(member, "photo", "member-b")
        copied, kept = Member.objects.using("other").get(), Member.objects.get()
        assert (copied.tenant, copied.secret, copied.photo) == ("b", "s", b"p")
        assert (kept.tenant, kept.secret, kept.photo) == ("a", "s", b"p")

    def test_a_part_of_a_move_in_another_database_is_refused(self) -> None:
        Member.objects.using("other").create(tenant="a", name="1", secret="s")
        member = Member.objects.using("other").get()
        member.tenant = "b"
        with pytest.raises(FieldError, match="'tenant' has changed"):
            member.save(update_fields=["tenant"])
        assert Member.objects.using("other").get().secret == "s"


@pytest.mark.parametrize("error", [EncryptionError, PartitionMismatchError])
def test_errors_name_no_value(north: Clinic, error: type[Exception]) -> None:
    patient = Patient.objects.create(clinic=north, ssn="900-12-3456")
    if error is EncryptionError:
        patient.clinic_id = None
        with refused(error, "needs") as caught:
            patient.save()
    else:
        Patient.objects.update(clinic=Clinic.objects.create())
        with refused(error, "the record names key") as caught:
            Patient.objects.get().ssn
    assert "900-12" not in str(caught.value) + repr(caught.value)
