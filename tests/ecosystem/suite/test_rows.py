"""Rows that say their partition, with the packages: what they read, write and keep of a row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import reversion
from auditlog.models import LogEntry
from auditlog.registry import auditlog
from django.core import checks, serializers
from rest_framework.serializers import ModelSerializer
from reversion.models import Version

from django_asherah.exceptions import PartitionMismatchError
from tests.ecosystem.suite.models import Resident, ResidentWithHistory
from tests.fields.helpers import is_sealed_for
from tests.testapp.models import Clinic

pytestmark = pytest.mark.django_db

VALUES = {"secret": "900-12", "doc": {"a": [1]}}


def assert_belongs(row: Any, clinic: Clinic, **changed: Any) -> None:
    assert is_sealed_for(row, "secret", f"clinic-{clinic.pk}")
    assert is_sealed_for(row, "doc", f"clinic-{clinic.pk}")
    loaded = type(row)._base_manager.get(pk=row.pk)
    assert {"secret": loaded.secret, "doc": loaded.doc} == {**VALUES, **changed}


class ResidentSerializer(ModelSerializer):  # type: ignore[type-arg]
    class Meta:
        model = Resident
        fields = ("id", "clinic", "secret", "doc")


class TestRestFramework:
    def test_create_read_change_and_move(self, north: Clinic, south: Clinic) -> None:
        made = ResidentSerializer(data={"clinic": north.pk, **VALUES})
        assert made.is_valid(), made.errors
        row = made.save()
        assert_belongs(row, north)
        assert ResidentSerializer(Resident.objects.get()).data == {"id": row.pk, "clinic": north.pk, **VALUES}
        for data, clinic, changed in (
            ({"secret": "new"}, north, {"secret": "new"}),
            ({"clinic": south.pk}, south, {"secret": "new"}),
            ({"clinic": north.pk, "doc": [2]}, north, {"secret": "new", "doc": [2]}),
        ):
            form = ResidentSerializer(Resident.objects.get(), data=data, partial=True)
            assert form.is_valid(), form.errors
            form.save()
            assert_belongs(row, clinic, **changed)

    def test_many(self, north: Clinic, south: Clinic) -> None:
        made = ResidentSerializer(data=[{"clinic": each.pk, **VALUES} for each in (north, south)], many=True)
        assert made.is_valid(), made.errors
        for row, clinic in zip(made.save(), (north, south), strict=True):
            assert_belongs(row, clinic)
        assert [each["secret"] for each in ResidentSerializer(Resident.objects.all(), many=True).data] == ["900-12"] * 2


class TestSimpleHistory:
    @pytest.fixture
    def row(self, north: Clinic) -> ResidentWithHistory:
        return ResidentWithHistory.objects.create(clinic=north, **VALUES)

    def test_the_checks_have_nothing_to_say(self) -> None:
        for model in (ResidentWithHistory, ResidentWithHistory.history.model):
            assert [each for each in model.check() if str(each.id).startswith("asherah.")] == []
        found = checks.run_checks(databases=["default"])
        assert not [each for each in found if str(each.id).startswith("asherah.E1")]

    def test_history_is_sealed_for_the_rows_tenant(self, row: ResidentWithHistory, north: Clinic) -> None:
        (kept,) = row.history.all()
        assert_belongs(kept, north)

    @pytest.mark.parametrize("is_read", [True, False])
    def test_a_move_leaves_the_history_with_the_old_tenant(
        self, row: ResidentWithHistory, north: Clinic, south: Clinic, is_read: bool
    ) -> None:
        moved = ResidentWithHistory.objects.get()
        if is_read:
            assert (moved.secret, moved.doc) == tuple(VALUES.values())
        moved.clinic = south
        moved.save()
        new, old = row.history.order_by("-history_id")
        assert_belongs(old, north)
        assert_belongs(new, south)
        assert new.diff_against(old).changed_fields == ["clinic"]

    def test_going_back_goes_back_to_the_old_tenant(
        self, row: ResidentWithHistory, north: Clinic, south: Clinic
    ) -> None:
        row.clinic, row.secret = south, "new"
        row.save()
        first = row.history.order_by("history_id")[0]
        first.instance.save()
        assert ResidentWithHistory.objects.get().clinic_id == north.pk
        assert_belongs(row, north)
        assert_belongs(row.history.latest(), north)

    def test_what_was_at_a_time(self, row: ResidentWithHistory, south: Clinic) -> None:
        moment = row.history.latest().history_date
        row.clinic, row.secret = south, "new"
        row.save()
        assert row.history.as_of(moment).secret == "900-12"

    def test_bulk_create_with_history(self, north: Clinic, south: Clinic) -> None:
        from simple_history.utils import bulk_create_with_history

        made = [ResidentWithHistory(clinic=clinic, **VALUES) for clinic in (north, south)]
        bulk_create_with_history(made, ResidentWithHistory)
        for clinic in (north, south):
            assert_belongs(ResidentWithHistory.objects.get(clinic=clinic), clinic)
            assert_belongs(ResidentWithHistory.history.get(clinic=clinic), clinic)

    def test_deleting_keeps_what_was_there(self, row: ResidentWithHistory, north: Clinic) -> None:
        row.delete()
        kept = ResidentWithHistory.history.latest()
        assert kept.history_type == "-"
        assert_belongs(kept, north)

    def test_a_record_of_another_tenant_in_the_history_does_not_open(
        self, row: ResidentWithHistory, south: Clinic
    ) -> None:
        ResidentWithHistory.history.update(clinic=south)
        with pytest.raises(PartitionMismatchError, match=r"suite\.HistoricalResidentWithHistory\.secret"):
            ResidentWithHistory.history.get().secret


class TestReversion:
    @pytest.fixture(autouse=True)
    def _registered(self) -> Iterator[None]:
        reversion.register(Resident)
        yield
        reversion.unregister(Resident)

    def test_going_back_seals_for_the_tenant_of_then(self, north: Clinic, south: Clinic) -> None:
        with reversion.create_revision():
            row = Resident.objects.create(clinic=north, **VALUES)
        with reversion.create_revision():
            row.clinic, row.secret = south, "new"
            row.save()
        assert_belongs(row, south, secret="new")
        first = Version.objects.get_for_object(row).last()
        first.revision.revert()  # type: ignore[union-attr]
        assert Resident.objects.get().clinic_id == north.pk
        assert_belongs(row, north)


class TestAuditlog:
    @pytest.fixture(autouse=True)
    def _registered(self) -> Iterator[None]:
        auditlog.register(Resident)
        yield
        auditlog.unregister(Resident)

    def changes(self) -> list[set[str]]:
        return [set(entry.changes) for entry in LogEntry.objects.order_by("id")]

    def test_a_move_is_no_change_of_the_values(self, north: Clinic, south: Clinic) -> None:
        Resident.objects.create(clinic=north, **VALUES)
        row = Resident.objects.get()
        row.clinic = south
        row.save()
        assert self.changes()[1:] == [{"clinic"}]
        assert_belongs(row, south)

    def test_a_fixture_of_the_same_values_is_no_change(self, north: Clinic) -> None:
        dumped = serializers.serialize("json", [Resident.objects.create(clinic=north, **VALUES)])
        for item in serializers.deserialize("json", dumped):
            item.save()
        assert self.changes()[1:] == []

    def test_a_raw_save_of_the_same_values_is_no_change(self, north: Clinic) -> None:
        Resident.objects.create(clinic=north, **VALUES)
        Resident.objects.get().save_base(raw=True)
        assert self.changes()[1:] == []
