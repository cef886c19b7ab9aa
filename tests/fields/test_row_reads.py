"""Reads of rows that say their partition: into instances always, elsewhere if the query selects what says it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar
from uuid import UUID

import django
import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import FieldError
from django.db import models
from django.db.models import Case, Exists, F, FilteredRelation, OuterRef, Prefetch, Q, Subquery, When
from django.db.models.functions import Coalesce

from django_asherah import engine
from tests.fields.helpers import refused
from tests.testapp.models import Clinic, Patient
from tests.testapp.tenants import Account, Bed, Doctor, Letter, Member, Referral, Staff, Stay, Ticket

pytestmark = pytest.mark.django_db

VALUES: dict[str, Any] = {"ssn": "900-12", "history": {"a": [1]}, "scan": b"\x00\xff"}
NAMES = tuple(VALUES)
patients = Patient.objects


@pytest.fixture(autouse=True)
def rows(north: Clinic, south: Clinic) -> list[Patient]:
    """One row of each tenant."""
    return patients.bulk_create([Patient(clinic=clinic, name=clinic.name, **VALUES) for clinic in (north, south)])


INSTANCES: dict[str, Callable[[], Any]] = {
    "all": patients.all,
    "iterator": lambda: patients.iterator(chunk_size=1),
    "in_bulk": lambda: patients.in_bulk().values(),
    "raw": lambda: patients.raw("SELECT * FROM testapp_tenants_patient"),
    "raw with columns left out": lambda: patients.raw("SELECT id, clinic_id FROM testapp_tenants_patient"),
    "raw without the tenant": lambda: patients.raw("SELECT id, ssn, history, scan FROM testapp_tenants_patient"),
    "only": lambda: patients.only("ssn"),
    "only some": lambda: patients.only("scan", "history"),
    "defer": lambda: patients.defer(*NAMES),
    "defer the tenant": lambda: patients.defer("clinic"),
    "union": lambda: patients.filter(name="north").union(patients.filter(name="south")),
    "select_related": lambda: patients.select_related("clinic"),
    "select_related only": lambda: patients.select_related("clinic").only("ssn", "clinic__name"),
    "prefetched": lambda: [row for c in Clinic.objects.prefetch_related("patient_set") for row in c.patient_set.all()],
    "prefetched in part": lambda: [
        row
        for clinic in Clinic.objects.prefetch_related(Prefetch("patient_set", patients.only("ssn", "clinic"), "found"))
        for row in clinic.found  # type: ignore[attr-defined]
    ],
    "of a relation": lambda: [row for clinic in Clinic.objects.all() for row in clinic.patient_set.all()],
    "annotated with another column": lambda: patients.annotate(other=F("clinic__name")),
    "annotated with itself": lambda: patients.annotate(other=F("ssn")),
    "ordered by the relation": lambda: patients.order_by("clinic__name"),
    "a slice": lambda: patients.order_by("pk")[0:2],
    "distinct": patients.distinct,
    "reverse": lambda: patients.order_by("pk").reverse(),
    "exists": lambda: patients.filter(Exists(Clinic.objects.filter(pk=OuterRef("clinic")))),
    "of a subquery of keys": lambda: patients.filter(pk__in=patients.values("pk")),
    "extra": lambda: patients.extra(select={"one": "1"}),
    "using": lambda: patients.using("default"),
    "not null": lambda: patients.filter(ssn__isnull=False),
}


@pytest.mark.parametrize("way", INSTANCES)
def test_instances_open_whatever_was_selected(way: str) -> None:
    found = list(INSTANCES[way]())
    assert [{name: getattr(row, name) for name in NAMES} for row in found] == [VALUES, VALUES]
    assert {row.clinic.name for row in found} == {"north", "south"}


def test_first_last_get_earliest_latest(south: Clinic) -> None:
    found = [
        patients.first(),
        patients.last(),
        patients.get(clinic=south),
        patients.earliest("pk"),
        patients.latest("pk"),
    ]
    assert [row.ssn for row in found if row is not None] == [VALUES["ssn"]] * 5


def test_async_with_no_key_at_hand() -> None:
    async def work() -> list[Any]:
        found = [row async for row in patients.all()]
        found.append(await patients.aget(name="south"))
        found += [row async for row in patients.select_related("clinic").aiterator()]
        return [getattr(row, name) for row in found for name in NAMES]

    engine.reset()
    assert async_to_sync(work)() == [*VALUES.values()] * 5


class TestRelated:
    def test_both_ways_of_inheritance(self) -> None:
        Doctor.objects.create(site=1, unit=2, salary="s", licence="l")
        (child,), (parent,) = Doctor.objects.select_related("staff_ptr"), Staff.objects.select_related("doctor")
        assert (child.licence, child.salary, child.staff_ptr.salary) == ("l", "s", "s")
        assert (parent.salary, parent.doctor.licence, parent.doctor.salary) == ("s", "l", "s")

    def test_a_relation_that_points_nowhere(self) -> None:
        member = Member.objects.create(tenant="a", secret="s", photo=b"p")
        Referral.objects.create()
        Referral.objects.create(member=member)
        nobody, somebody = Referral.objects.select_related("member").order_by("pk")
        assert nobody.member is None
        assert (somebody.member.secret, somebody.member.photo) == ("s", b"p")  # type: ignore[union-attr]

    def test_a_relation_that_points_nowhere_keeps_no_key_from_the_others(self) -> None:
        member = Member.objects.create(tenant="a", secret="s", photo=b"p")
        Referral.objects.create()
        Referral.objects.create(member=member)

        async def work() -> Any:
            found = [row async for row in Referral.objects.select_related("member").order_by("pk")]
            return found[1].member.photo

        engine.reset()
        assert async_to_sync(work)() == b"p"

    def test_values_of_an_outer_join(self, north: Clinic) -> None:
        empty = Clinic.objects.create(name="empty")
        found = Clinic.objects.values("pk", "patient__clinic", "patient__ssn")
        assert {row["pk"]: row["patient__ssn"] for row in found} == {
            **{clinic.pk: VALUES["ssn"] for clinic in Clinic.objects.exclude(name="empty")},
            empty.pk: None,
        }

    def test_values_over_a_relation(self) -> None:
        found = Clinic.objects.order_by("pk").values_list("patient__clinic_id", "patient__ssn", "patient__scan")
        assert [row[1:] for row in found] == [(VALUES["ssn"], VALUES["scan"])] * 2

    def test_an_annotation_over_a_relation(self) -> None:
        clinics = Clinic.objects.annotate(its=F("patient__clinic_id"), ssn=F("patient__ssn"))
        assert [clinic.ssn for clinic in clinics] == [VALUES["ssn"]] * 2
        assert list(clinics.values_list("ssn", "its").order_by("pk")) == [
            (VALUES["ssn"], clinic.pk) for clinic in Clinic.objects.order_by("pk")
        ]

    def test_the_columns_of_another_row_are_not_those_of_this(self) -> None:
        """The tenant's own key is equal, but is no column of the row that holds the value."""
        with refused(FieldError, r"testapp\.Patient\.ssn: .* select clinic_id of the same row"):
            list(Clinic.objects.values("pk", "patient__ssn"))

    def test_a_filtered_relation(self) -> None:
        clinics = Clinic.objects.annotate(p=FilteredRelation("patient", condition=Q(patient__name="north")))
        found = clinics.filter(p__name="north").values_list("p__clinic_id", "p__ssn")
        assert [ssn for _, ssn in found] == [VALUES["ssn"]]


class TestValues:
    @pytest.mark.parametrize("tenant", ["clinic", "clinic_id", "clinic__id", "clinic__pk"])
    def test_with_the_tenant(self, tenant: str) -> None:
        assert [row["ssn"] for row in patients.values("ssn", tenant)] == [VALUES["ssn"]] * 2
        assert [row[1:] for row in patients.values_list(tenant, *NAMES)] == [(*VALUES.values(),)] * 2
        assert [row.scan for row in patients.values_list("scan", tenant, named=True)] == [VALUES["scan"]] * 2

    def test_all_columns(self) -> None:
        assert [{name: row[name] for name in NAMES} for row in patients.values()] == [VALUES, VALUES]

    QUERIES: ClassVar[dict[str, Callable[[], Any]]] = {
        "values": lambda: patients.values("ssn"),
        "values of some": lambda: patients.values("ssn", "name", "scan", "history"),
        "values of the related name": lambda: patients.values("ssn", "clinic__name"),
        "values_list": lambda: patients.values_list("ssn", "pk"),
        "flat": lambda: patients.values_list("ssn", flat=True),
        "named": lambda: patients.values_list("ssn", named=True),
        "annotated": lambda: patients.annotate(s=F("ssn")).values("s"),
        "alias": lambda: patients.alias(s=F("ssn")).annotate(t=F("s")).values("t"),
        "annotated over a relation": lambda: Clinic.objects.annotate(s=F("patient__ssn")),
        "union": lambda: patients.values("ssn").union(patients.values("ssn"), all=True),
        "iterator": lambda: patients.values_list("ssn").iterator(),
        "Coalesce": lambda: patients.values_list(Coalesce("ssn", "ssn")),
        "Case": lambda: patients.values_list(Case(When(pk__gt=0, then=F("ssn")))),
        "Subquery": lambda: patients.annotate(s=Subquery(patients.filter(pk=OuterRef("pk")).values("ssn"))),
        "Subquery of another table": lambda: Clinic.objects.annotate(
            s=Subquery(patients.filter(clinic=OuterRef("pk")).values("ssn")[:1])
        ),
        "in a dict": lambda: dict(patients.values_list("pk", "ssn")),
    }

    @pytest.mark.parametrize("way", QUERIES)
    def test_without_the_tenant_it_is_refused(self, way: str) -> None:
        with refused(FieldError, r"testapp\.Patient\.ssn: .* select clinic_id of the same row, too; or read instances"):
            list(self.QUERIES[way]())

    def test_union_with_the_tenant(self) -> None:
        found = patients.values_list("clinic", "ssn")
        assert [row[1] for row in found.union(found, all=True)] == [VALUES["ssn"]] * 4

    def test_none_without_the_tenant(self) -> None:
        """Refused all the same: whether it is None depends on the rows, and a query works or does not."""
        patients.update(ssn=None)
        with refused(FieldError, "select clinic_id"):
            list(patients.values("ssn"))
        assert [row["ssn"] for row in patients.values("ssn", "clinic")] == [None, None]

    def test_counting_and_null_need_no_tenant(self) -> None:
        assert patients.filter(ssn__isnull=False).values("pk").count() == 2
        assert patients.aggregate(n=models.Count("ssn")) == {"n": 2}
        assert list(patients.annotate(is_set=Q(ssn__isnull=False)).values_list("is_set", flat=True)) == [True, True]

    def test_columns_of_every_kind(self) -> None:
        owner = UUID(int=7)
        Account.objects.create(owner=owner, secret="s", born="2000-02-29", score=7, notes=[1])
        Ticket.objects.create(day="2026-02-28", is_paid=True, level=-1, by_day="d", by_payment="p", by_level="l")
        Bed.objects.create(ward="south wing", number=-3, secret="s")
        Stay.objects.create(house=1, number=2, secret="s")
        Letter.objects.create(clinic_id=99, number="n", text="t")
        account = Account.objects.values_list("secret", "born", "score", "notes", "owner").get()
        assert [str(each) for each in account] == ["s", "2000-02-29", "7", "[1]", str(owner)]
        assert Ticket.objects.values_list("by_day", "by_payment", "by_level", "is_paid", "day", "level").get()[:3] == (
            "d",
            "p",
            "l",
        )
        assert Bed.objects.values_list("secret", "number", "ward").get() == ("s", -3, "south wing")
        assert Stay.objects.values_list("number", "secret", "house").get() == (2, "s", 1)
        assert Letter.objects.values_list("text", "clinic").get() == ("t", 99)
        for queryset in (Bed.objects.values("secret", "ward"), Stay.objects.values("secret", "number")):
            with refused(FieldError, "here no row is known"):
                list(queryset)  # type: ignore[call-overload]

    def test_two_tables_each_with_its_own(self) -> None:
        Doctor.objects.create(site=1, unit=2, salary="s", licence="l")
        assert Doctor.objects.values_list("salary", "licence", "site", "unit").get() == ("s", "l", 1, 2)
        for names in (("salary", "unit"), ("licence", "site")):
            with refused(FieldError, "here no row is known"):
                Doctor.objects.values_list(*names).get()


@pytest.mark.skipif(django.VERSION < (6, 1), reason="fetch modes came with Django 6.1")
class TestFetchModes:
    def test_peers_of_what_was_left_out(self) -> None:
        for name in NAMES:
            found = list(patients.defer(name).fetch_mode(models.FETCH_PEERS))  # type: ignore[attr-defined]
            assert [getattr(row, name) for row in found] == [VALUES[name]] * 2

    def test_opening_is_no_fetch(self) -> None:
        found = list(patients.fetch_mode(models.FETCH_RAISE))  # type: ignore[attr-defined]
        assert [{name: getattr(row, name) for name in NAMES} for row in found] == [VALUES, VALUES]

    def test_peers_without_their_tenant(self) -> None:
        found = list(patients.only("name").fetch_mode(models.FETCH_PEERS))  # type: ignore[attr-defined]
        assert [{name: getattr(row, name) for name in NAMES} for row in found] == [VALUES, VALUES]
