"""Rows that say their partition, loaded without the column that says it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import django
import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import FieldError
from django.db import models

from django_asherah import engine
from django_asherah.exceptions import AsherahError
from tests.fields.rows import records
from tests.fields.watching import queries, sealed_names
from tests.testapp.models import Clinic, Patient

pytestmark = pytest.mark.django_db(transaction=True)

NAMES = ("ssn", "history", "scan")


@pytest.fixture
def patient() -> Patient:
    patient = Patient.objects.create(clinic=Clinic.objects.create(), name="n", ssn="1", history=[1], scan=b"s")
    engine.get_factory().clear()
    return patient


@pytest.mark.parametrize("name", NAMES)
def test_it_opens(name: str, patient: Patient) -> None:
    for row in (Patient.objects.only(name).get(), Patient.objects.defer("clinic").get()):
        assert name in sealed_names(row)
        assert getattr(row, name) == getattr(patient, name)


@pytest.mark.parametrize("name", NAMES)
def test_reading_it_costs_no_query(name: str, patient: Patient) -> None:
    row = Patient.objects.only(name).get()
    assert queries(lambda: getattr(row, name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_it_is_read_in_an_event_loop(name: str, patient: Patient) -> None:
    async def work() -> None:
        row = await Patient.objects.only(name).aget()
        assert getattr(row, name) == getattr(patient, name)

    async_to_sync(work)()


@pytest.mark.skipif(django.VERSION < (6, 1), reason="Django has fetch modes from 6.1 on")
@pytest.mark.parametrize("name", NAMES)
def test_reading_it_is_no_fetch(name: str, patient: Patient) -> None:
    mode: Any = models
    row = Patient.objects.only(name).fetch_mode(mode.FETCH_RAISE).get()
    assert getattr(row, name) == getattr(patient, name)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_saved_unread_as_it_was(name: str, patient: Patient) -> None:
    before = records(patient)
    for row in (Patient.objects.only(name).get(), Patient.objects.defer("clinic").get()):
        row.save()
        assert records(patient) == before


def test_saving_it_unread_asks_only_whose_the_row_is(patient: Patient) -> None:
    """Somebody else may have moved it."""
    row = Patient.objects.only("ssn").get()
    assert len(queries(row.save)) == 2


MOVES: dict[str, tuple[Callable[[], Patient], Any]] = {
    "loaded whole": (Patient.objects.get, []),
    "loaded without its values": (lambda: Patient.objects.only("clinic").get(), []),
    "loaded without one value": (lambda: Patient.objects.defer("ssn").get(), []),
    "loaded without its clinic": (lambda: Patient.objects.defer("clinic").get(), []),
    "loaded with one value": (lambda: Patient.objects.only("ssn").get(), []),
    "loaded with another column": (lambda: Patient.objects.only("name").get(), []),
}


@pytest.mark.parametrize("load", [pytest.param(name, marks=marks) for name, (_, marks) in MOVES.items()])
def test_moving_it_is_right_or_refused(load: str, patient: Patient) -> None:
    Patient.objects.filter(pk=patient.pk).update(scan=None)  # A compact record would be refused by itself.
    row = MOVES[load][0]()
    row.clinic = Clinic.objects.create()
    with suppress(FieldError, AsherahError):
        row.save()
    again = Patient.objects.get()
    assert (again.ssn, again.history) == ("1", [1])


@pytest.mark.parametrize("name", NAMES)
def test_a_value_that_was_read_moves_with_the_row_and_leaves_no_other_behind(name: str, patient: Patient) -> None:
    row = Patient.objects.only(name).get()
    assert getattr(row, name) == getattr(patient, name)
    row.clinic = Clinic.objects.create()
    with suppress(FieldError):
        row.save()
    again = Patient.objects.get()
    assert (again.ssn, again.history, again.scan) == ("1", [1], b"s")


def test_what_is_taken_out_of_one_tenants_row_is_right_or_refused_in_anothers(patient: Patient) -> None:
    Patient.objects.update(scan=None)
    held = {name: value for name, value in vars(Patient.objects.get()).items() if name not in ("_state", "id")}
    with suppress(FieldError, AsherahError):
        Patient.objects.create(**{**held, "clinic_id": Clinic.objects.create().pk})
    assert {row.ssn for row in Patient.objects.all()} == {"1"}


def test_a_row_that_another_has_moved_is_refreshed(patient: Patient) -> None:
    row, mover = Patient.objects.get(), Patient.objects.get()
    mover.clinic = Clinic.objects.create()
    mover.save()
    row.refresh_from_db()
    assert (row.ssn, row.history, row.scan, row.clinic_id) == ("1", [1], b"s", mover.clinic_id)
    row.save()
    assert Patient.objects.get().ssn == "1"
