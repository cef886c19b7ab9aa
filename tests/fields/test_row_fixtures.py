"""Fixtures of rows that say their partition: plaintext in the file, each row's own tenant's record in the table."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from django.core import serializers
from django.core.management import call_command
from django.db import IntegrityError, models, transaction
from django.db.models.signals import post_save, pre_save

from django_asherah.exceptions import EncryptionError
from tests.fields.helpers import is_sealed_for, record_of, refused
from tests.testapp.models import Clinic, Patient
from tests.testapp.tenants import Account, Doctor, Letter, Member, Staff, Stay

pytestmark = pytest.mark.django_db

VALUES: dict[str, Any] = {"ssn": "900-12", "history": {"a": [1]}, "scan": b"\x00\xff"}
NAMES = tuple(VALUES)
FORMATS = ["json", "jsonl", "python", "yaml"]


@pytest.fixture
def rows(north: Clinic, south: Clinic) -> list[Patient]:
    return [Patient.objects.create(clinic=clinic, name=clinic.name, **VALUES) for clinic in (north, south)]


def load(kind: str, dumped: Any) -> list[Any]:
    """Save all that was dumped, and return the instances."""
    items = list(serializers.deserialize(kind, dumped))
    for item in items:
        item.save()
    return [item.object for item in items]


def assert_whole(patient: Any) -> None:
    for name in NAMES:
        assert is_sealed_for(patient, name, f"clinic-{patient.clinic_id}")
    for row in (patient, Patient.objects.get(pk=patient.pk)):
        assert {name: getattr(row, name) for name in NAMES} == VALUES


@pytest.fixture(params=FORMATS)
def kind(request: pytest.FixtureRequest) -> str:
    """A format of fixtures; YAML if that is installed."""
    if request.param == "yaml":
        pytest.importorskip("yaml")
    name: str = request.param
    return name


class TestFormats:
    def test_round_trip(self, rows: list[Patient], kind: str) -> None:
        dumped = serializers.serialize(kind, Patient.objects.order_by("pk"))
        Patient.objects.all().delete()
        loaded = load(kind, dumped)
        assert [row.pk for row in loaded] == [row.pk for row in rows]
        for row in loaded:
            assert_whole(row)

    def test_over_rows_that_are_there(self, rows: list[Patient], kind: str) -> None:
        dumped = serializers.serialize(kind, Patient.objects.order_by("pk"))
        Patient.objects.update(ssn=None, scan=None)
        for row in load(kind, dumped):
            assert_whole(row)

    def test_over_rows_that_were_moved_since(self, rows: list[Patient], south: Clinic, kind: str) -> None:
        dumped = serializers.serialize(kind, Patient.objects.order_by("pk"))
        for row in Patient.objects.all():
            row.clinic = south
            row.save()
        for row in load(kind, dumped):
            assert_whole(row)
        assert Patient.objects.get(pk=rows[0].pk).clinic_id == rows[0].clinic_id

    def test_other_keys(self, kind: str) -> None:
        made: list[Any] = [
            Account.objects.create(secret="s", score=-1, notes={"a": 1}, born="2000-02-29"),
            Letter.objects.create(clinic_id=987, number="n", text="t"),
            Staff.objects.create(site=1, salary="s"),
            Stay.objects.create(house=1, number=2, secret="s"),
        ]
        before = [values(row._meta.model._default_manager.get(pk=row.pk)) for row in made]
        dumped = serializers.serialize(kind, [row._meta.model._default_manager.get(pk=row.pk) for row in made])
        for row in made:
            row._meta.model._default_manager.filter(pk=row.pk).delete()
        load(kind, dumped)
        assert [values(row._meta.model._default_manager.get(pk=row.pk)) for row in made] == before


def values(row: models.Model) -> list[Any]:
    return [getattr(row, field.attname) for field in row._meta.concrete_fields]


class TestXML:
    def test_round_trip(self) -> None:
        Member.objects.create(tenant="a", name="1", secret="s", photo=b"\x00p")
        dumped = serializers.serialize("xml", Member.objects.all())
        Member.objects.all().delete()
        load("xml", dumped)
        member = Member.objects.get()
        assert (member.tenant, member.secret, member.photo) == ("a", "s", b"\x00p")
        assert is_sealed_for(member, "photo", "member-a")

    def test_documents(self, rows: list[Patient]) -> None:
        histories = {row.pk: row.history for row in rows}
        dumped = serializers.serialize("xml", Patient.objects.all())
        Patient.objects.all().delete()
        load("xml", dumped)
        assert {row.pk: row.history for row in Patient.objects.all()} == histories


class TestRaw:
    def test_a_parent_and_its_child(self) -> None:
        Doctor.objects.create(site=1, unit=2, salary="s", licence="l")
        dumped = serializers.serialize("json", [*Staff.objects.all(), *Doctor.objects.all()])
        Staff.objects.all().delete()
        load("json", dumped)
        doctor = Doctor.objects.get()
        assert (doctor.salary, doctor.licence) == ("s", "l")
        assert is_sealed_for(doctor, "licence", "unit-2")

    def test_natural_keys(self) -> None:
        letter = Letter.objects.create(clinic_id=1, number="n", text="t")
        dumped = serializers.serialize("json", Letter.objects.all(), use_natural_primary_keys=True)
        assert "pk" not in json.loads(dumped)[0]
        changed = json.loads(dumped)
        changed[0]["fields"].update(clinic=2, text="new")
        (loaded,) = load("json", json.dumps(changed))
        assert loaded.pk == letter.pk
        assert is_sealed_for(letter, "text", "clinic-2")
        assert Letter.objects.get().text == "new"

    def test_loaddata(self, rows: list[Patient], tmp_path: Path) -> None:
        out = io.StringIO()
        call_command("dumpdata", "testapp.Clinic", "testapp.Patient", stdout=out)
        fixture = tmp_path / "patients.json"
        fixture.write_text(out.getvalue())
        Patient.objects.all().delete()
        Clinic.objects.all().delete()
        call_command("loaddata", str(fixture), verbosity=0)
        for row in Patient.objects.all():
            assert_whole(row)

    def test_a_row_without_a_tenant_is_refused(self) -> None:
        with refused(
            EncryptionError, r"testapp\.Member\.secret: .*'tenant'|its partition .* needs 'tenant', which is empty"
        ):
            load("python", [{"model": "testapp.member", "fields": {"tenant": "", "secret": "s"}}])
        assert not Member.objects.exists()

    def test_the_error_of_a_row_without_a_tenant_names_the_field(self) -> None:
        with refused(EncryptionError, r"^testapp\.Member\.secret: "):
            load("python", [{"model": "testapp.member", "fields": {"tenant": "", "secret": "s"}}])

    def test_an_unread_row_is_written_as_it_was(self, rows: list[Patient]) -> None:
        before = [record_of(rows[0], name) for name in NAMES]
        Patient.objects.get(pk=rows[0].pk).save_base(raw=True)
        assert [record_of(rows[0], name) for name in NAMES] == before

    def test_an_unread_row_that_moves(self, rows: list[Patient], south: Clinic) -> None:
        row = Patient.objects.get(pk=rows[0].pk)
        row.clinic = south
        row.save_base(raw=True)
        loaded = Patient.objects.get(pk=row.pk)
        assert (loaded.clinic_id, {name: getattr(loaded, name) for name in NAMES}) == (south.pk, VALUES)

    def test_an_unread_row_that_moved_can_be_read(self, rows: list[Patient], south: Clinic) -> None:
        row = Patient.objects.get(pk=rows[0].pk)
        row.clinic = south
        row.save_base(raw=True)
        assert {name: getattr(row, name) for name in NAMES} == VALUES

    def test_after_a_failed_save_the_instance_holds_its_values(self) -> None:
        Member.objects.create(tenant="a", name="taken", secret="old")
        (item,) = serializers.deserialize(
            "python", [{"model": "testapp.member", "fields": {"tenant": "b", "name": "taken", "secret": "new"}}]
        )
        with suppress(IntegrityError), transaction.atomic():
            item.save()
        assert item.object.secret == "new"  # type: ignore[attr-defined]

    def test_after_a_failed_save_it_is_sealed_anew(self) -> None:
        Member.objects.create(tenant="a", name="taken", secret="old")
        member = Member(tenant="b", name="taken", secret="new")
        with suppress(IntegrityError), transaction.atomic():
            member.save_base(raw=True)
        member.tenant, member.name = "c", "free"
        member.save()
        assert Member.objects.get(name="free").secret == "new"

    def test_who_listens_sees_values(self) -> None:
        seen: list[Any] = []

        def listen(sender: Any, instance: Any, **kwargs: Any) -> None:
            seen.append(instance.secret)

        with listening(listen):
            load("python", [{"model": "testapp.member", "fields": {"tenant": "a", "secret": "s"}}])
        assert seen == ["s", "s"]


@contextmanager
def listening(listen: Any) -> Iterator[None]:
    """Let a receiver hear of saves of members."""
    for signal in (pre_save, post_save):
        signal.connect(listen, sender=Member)
    try:
        yield
    finally:
        for signal in (pre_save, post_save):
            signal.disconnect(listen, sender=Member)
