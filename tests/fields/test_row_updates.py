"""Writes that know no row are refused by an error that names the way which works, and that way works."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import FieldError
from django.db.models import F, Value

from django_asherah.exceptions import EncryptionError, PartitionMismatchError
from django_asherah.fields import EncryptedQuerySet
from tests.fields.helpers import is_sealed_for, raw, record_of, refused, set_raw
from tests.testapp.models import Clinic, Patient
from tests.testapp.tenants import Bed, Doctor, Member, Stay

pytestmark = pytest.mark.django_db

WAY = r"bulk_update\(\) of django_asherah\.fields\.EncryptedQuerySet"


@pytest.fixture
def members() -> list[Member]:
    """Rows of two tenants, unread."""
    Member.objects.bulk_create(
        [Member(tenant=t, name=f"{t}{n}", secret=f"s {t}{n}", spare="t", photo=b"p") for n in range(3) for t in "ab"]
    )
    return list(Member.objects.order_by("name"))


def state() -> list[tuple[Any, ...]]:
    """Return all rows as they open."""
    return [(row.tenant, row.name, row.secret, row.spare, row.photo) for row in Member.objects.order_by("name")]


class TestUpdate:
    @pytest.mark.parametrize("value", ["x", "", 7])
    def test_a_value_is_refused(self, members: list[Member], value: Any) -> None:
        before = state()
        with refused(FieldError, r"testapp\.Member\.secret: the row says its partition 'member-\{tenant\}', .*" + WAY):
            Member.objects.update(secret=value)
        with refused(FieldError, WAY):
            Member.objects.filter(tenant="a").update(tenant="b", secret=value)
        assert state() == before

    def test_in_an_event_loop_it_is_refused_too(self, members: list[Member]) -> None:
        async def update() -> None:
            await Member.objects.aupdate(secret="x")

        with refused(FieldError, WAY):
            async_to_sync(update)()

    def test_none_is_a_value_of_every_row(self, members: list[Member]) -> None:
        assert Member.objects.filter(tenant="a").update(secret=None, spare=Value(None)) == 3
        assert [(tenant, secret, spare) for tenant, _, secret, spare, _ in state()] == [
            ("a", None, None), ("a", None, None), ("a", None, None),
            ("b", "s b0", "t"), ("b", "s b1", "t"), ("b", "s b2", "t"),
        ]  # fmt: skip

    def test_another_column_of_the_same_row(self, members: list[Member]) -> None:
        assert Member.objects.update(secret=F("spare")) == 6
        assert {secret for _, _, secret, _, _ in state()} == {"t"}

    def test_a_column_of_another_type_or_partition_is_refused(self, north: Clinic) -> None:
        Patient.objects.create(clinic=north, ssn="s", remark="r")
        for names in ({"ssn": F("remark")}, {"remark": F("ssn")}, {"ssn": F("history")}, {"ssn": F("name")}):
            with refused(FieldError, "is encrypted: the database would store what"):
                Patient.objects.update(**names)
        assert Patient.objects.get().ssn == "s"

    def test_of_the_tenant_leaves_rows_that_do_not_open_and_are_not_lost(self, north: Clinic, south: Clinic) -> None:
        patient = Patient.objects.create(clinic=north, ssn="s", scan=b"p", remark="r")
        Patient.objects.update(clinic=south)
        loaded = Patient.objects.get()
        for name in ("ssn", "history", "scan"):
            with pytest.raises(PartitionMismatchError, match=rf"testapp\.Patient\.{name} pk={patient.pk}: .*"):
                getattr(loaded, name)
        assert loaded.remark == "r"
        before = [record_of(patient, name) for name in ("ssn", "history", "scan")]
        loaded.name = "new"
        loaded.save(update_fields=["name", "ssn"])
        loaded.save(update_fields=["name"])
        assert [record_of(patient, name) for name in ("ssn", "history", "scan")] == before
        Patient.objects.update(clinic=north)
        loaded = Patient.objects.get()
        assert (loaded.ssn, loaded.history, loaded.scan, loaded.name) == ("s", {}, b"p", "new")

    def test_a_row_left_under_the_wrong_tenant_takes_a_new_value(self, north: Clinic, south: Clinic) -> None:
        patient = Patient.objects.create(clinic=north, ssn="s", history={})
        Patient.objects.update(clinic=south)
        loaded = Patient.objects.get()
        loaded.ssn = "new"
        loaded.save(update_fields=["ssn"])
        assert is_sealed_for(patient, "ssn", f"clinic-{south.pk}")
        assert Patient.objects.get().ssn == "new"


class TestDjangosBulkUpdate:
    def test_it_is_refused(self, north: Clinic) -> None:
        Patient.objects.create(clinic=north, ssn="s")
        patients = list(Patient.objects.all())
        for name in ("ssn", "history"):
            setattr(patients[0], name, "new")
            with refused(FieldError, rf"testapp\.Patient\.{name}: .*{WAY}"):
                Patient.objects.bulk_update(patients, [name])
        assert (Patient.objects.get().ssn, Patient.objects.get().history) == ("s", {})

    def test_of_other_columns_and_of_none(self, north: Clinic) -> None:
        patient = Patient.objects.create(clinic=north, ssn="s", remark="r")
        patient.name, patient.remark, patient.ssn = "new", "new", None
        Patient.objects.bulk_update([patient], ["name", "remark", "ssn"])
        loaded = Patient.objects.get()
        assert (loaded.name, loaded.remark, loaded.ssn) == ("new", "new", None)


class TestBulkUpdate:
    def test_each_row_under_its_own_partition(self, members: list[Member]) -> None:
        for member in members:
            member.secret = f"new {member.name}"
        assert Member.objects.bulk_update(members, ["secret"]) == 6
        assert [row[1:3] for row in state()] == [(member.name, f"new {member.name}") for member in members]
        for member in members:
            assert is_sealed_for(member, "secret", f"member-{member.tenant}")
            assert member.secret == f"new {member.name}"

    def test_what_was_not_read_is_written_as_it_is(self, members: list[Member]) -> None:
        before = [(record_of(member, "secret"), record_of(member, "photo")) for member in members]
        Member.objects.bulk_update(members, ["secret", "photo", "spare"], batch_size=2)
        assert [(record_of(member, "secret"), record_of(member, "photo")) for member in members] == before

    def test_rows_that_moved(self, members: list[Member]) -> None:
        expected = [("c", *row[1:]) for row in state()]
        for member in members:
            member.tenant = "c"
        Member.objects.bulk_update(members, ["tenant", "secret", "spare", "photo"])
        assert state() == expected
        assert all(is_sealed_for(member, "photo", "member-c") for member in members)

    def test_rows_that_moved_unread_can_be_read(self, members: list[Member]) -> None:
        self.move(members[0])
        assert (members[0].secret, members[0].photo) == ("s a0", b"p")

    def test_rows_that_moved_unread_can_be_saved(self, members: list[Member]) -> None:
        self.move(members[0])
        members[0].save()
        moved = Member.objects.get(tenant="c")
        assert (moved.secret, moved.photo) == ("s a0", b"p")

    def test_rows_that_moved_unread_can_move_on(self, members: list[Member]) -> None:
        self.move(members[0])
        members[0].tenant = "d"
        members[0].save()
        assert Member.objects.get(tenant="d").secret == "s a0"

    def move(self, member: Member) -> None:
        member.tenant = "c"
        Member.objects.bulk_update([member], ["tenant", "secret", "spare", "photo"])

    @pytest.mark.parametrize("names", [["tenant"], ["secret"], ["tenant", "secret"], ["tenant", "spare", "photo"]])
    def test_a_part_of_a_move_is_refused(self, members: list[Member], names: list[str]) -> None:
        before = state()
        members[-1].tenant = "c"
        with refused(FieldError, r"'tenant' has changed, and with it the partition 'member-\{tenant\}'"):
            Member.objects.bulk_update(members, names)
        assert state() == before
        assert members[0].secret == "s a0"

    def test_none_and_another_column(self, members: list[Member]) -> None:
        members[0].secret, members[1].secret = None, F("spare")  # type: ignore[assignment]
        Member.objects.bulk_update(members[:2], ["secret"])
        assert [row[2] for row in state()[:3]] == [None, "t", "s a2"]

    def test_a_value_that_was_left_out_of_the_query(self, members: list[Member]) -> None:
        before = state()
        partly = list(Member.objects.defer("secret"))
        Member.objects.bulk_update(partly, ["secret"])
        assert state() == before

    def test_a_tenant_that_was_left_out_of_the_query(self, members: list[Member]) -> None:
        before = state()
        partly = list(Member.objects.only("secret", "photo"))
        Member.objects.bulk_update(partly, ["secret", "photo"])
        partly[0].secret = partly[0].secret
        Member.objects.bulk_update(partly, ["secret", "photo"])
        assert state() == before

    def test_one_row_without_a_tenant_and_none_is_written(self, members: list[Member]) -> None:
        before = state()
        for member in members:
            member.secret = "new"
        members[-1].tenant = ""
        with refused(EncryptionError, "needs 'tenant', which is empty"):
            Member.objects.bulk_update(members, ["tenant", "secret", "spare", "photo"])
        assert state() == before
        assert members[0].secret == "new"

    def test_one_record_of_another_tenant_stays_as_it_is(self, north: Clinic, south: Clinic) -> None:
        for clinic in (north, south):
            Patient.objects.create(clinic=clinic, ssn=clinic.name)
        patients = list(Patient.objects.order_by("pk"))
        set_raw(patients[0], "ssn", raw(patients[1], "ssn"))
        patients = list(EncryptedQuerySet(Patient).order_by("pk"))
        EncryptedQuerySet(Patient).bulk_update(patients, ["ssn"])
        with pytest.raises(PartitionMismatchError):
            Patient.objects.get(pk=patients[0].pk).ssn
        assert Patient.objects.get(pk=patients[1].pk).ssn == "south"

    def test_it_works_on_any_model_and_any_key(self) -> None:
        Stay.objects.bulk_create([Stay(house=house, number=1, secret="s") for house in (1, 2)])
        Doctor.objects.create(site=1, unit=2, salary="s", licence="l")
        Bed.objects.create(ward="north", number=1, secret="s")
        for model, names in ((Stay, ["secret"]), (Doctor, ["salary", "licence"]), (Bed, ["secret", "ward", "number"])):
            rows = list(model._default_manager.all())
            for row in rows:
                row.secret = row.salary = row.licence = f"new {row.pk}"  # type: ignore[attr-defined]
            EncryptedQuerySet(model).bulk_update(rows, names)
            for row in model._default_manager.all():
                name = names[0]
                assert getattr(row, name) == f"new {row.pk}"

    def test_async(self, members: list[Member]) -> None:
        for member in members:
            member.secret = "new"

        async def update() -> int:
            return await Member.objects.abulk_update(members, ["secret"])

        assert async_to_sync(update)() == 6
        assert {row[2] for row in state()} == {"new"}

    def test_by_a_manager_of_a_relation(self, north: Clinic) -> None:
        """Whose queryset is Django's: it is refused, as it knows no row."""
        patient = north.patient_set.create(ssn="s")
        patient.ssn = "new"
        with refused(FieldError, WAY):
            north.patient_set.bulk_update([patient], ["ssn"])
        assert patient.ssn == "new"
