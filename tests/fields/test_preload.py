"""A queryset whose values name many keys: they are loaded together, or one by one when they are met."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_asherah import engine, lifecycle
from django_asherah.fields import preload_keys
from tests.databases import execute
from tests.testapp.models import Clinic, Note, Patient, Tenancy

pytestmark = pytest.mark.django_db(transaction=True)

KEYS = 6


def key_queries(work: Any) -> int:
    """Return how often ``work`` asks for keys."""
    with CaptureQueriesContext(connection) as sent:
        work()
    return len([query for query in sent if "encryption_key" in query["sql"]])


@pytest.fixture
def rotated() -> None:
    """Rows under six intermediate keys and as many system keys, none of them in hand."""
    for place in range(KEYS):
        Note.objects.create(body=f"text {place}")
        lifecycle.rotate()
    engine.get_factory().clear()


def texts() -> list[str | None]:
    return [note.body for note in Note.objects.order_by("pk")]


def test_without_it_rows_bring_their_keys_along(rotated: None) -> None:
    assert key_queries(texts) == 2


def test_with_it_all_cost_two_and_reading_none(rotated: None) -> None:
    assert key_queries(lambda: preload_keys(Note.objects.all())) == 2
    assert key_queries(texts) == 0
    assert texts() == [f"text {place}" for place in range(KEYS)]


def test_a_slice_brings_its_own_keys_only(rotated: None) -> None:
    preload_keys(Note.objects.order_by("pk")[:2])
    assert len(engine.get_factory().intermediate_keys) == 2


def test_every_encrypted_column_counts() -> None:
    Tenancy.objects.create(left="l", right="r", doc={})
    engine.get_factory().clear()
    assert key_queries(lambda: preload_keys(Tenancy.objects.all())) == 2
    assert key_queries(lambda: list(Tenancy.objects.all())) == 0


def test_what_is_no_record_is_passed_over(rotated: None) -> None:
    Note.objects.create(body="bad")
    spoil = "UPDATE testapp_note SET body = 'no record', other_body = 'nor this' WHERE id = %s"
    execute("default", spoil, [Note.objects.latest("pk").pk])
    engine.get_factory().clear()
    preload_keys(Note.objects.all())
    assert len(engine.get_factory().intermediate_keys) == KEYS


def test_no_rows_and_no_encrypted_fields_ask_for_nothing() -> None:
    assert key_queries(lambda: preload_keys(Note.objects.all())) == 0


@pytest.mark.parametrize("work", [lambda: lifecycle.verify_data(["testapp.Note"]), lifecycle.verify_keys])
def test_verify_asks_as_often_for_many_keys_as_for_few(work: Any, rotated: None) -> None:
    few = key_queries(work)
    for _ in range(KEYS):
        Note.objects.create(body="more")
        engine.get_factory().intermediate_keys.rotate("_IK_default_suite_tests")
    assert key_queries(work) == few


def test_re_encryption_asks_as_often_for_many_keys_as_for_few(rotated: None) -> None:
    few = key_queries(lambda: lifecycle.reencrypt(["testapp.Note"]))
    for _ in range(3 * KEYS):
        Note.objects.create(body="more")
        lifecycle.rotate()
    assert key_queries(lambda: lifecycle.reencrypt(["testapp.Note"])) == few


def test_keys_of_each_rows_partition_are_loaded_together() -> None:
    for number in range(KEYS):
        Patient.objects.create(clinic=Clinic.objects.create(), ssn=str(number), scan=b"x")
    engine.get_factory().clear()
    assert key_queries(lambda: preload_keys(Patient.objects.only("ssn", "scan"))) == 2
    assert len(engine.get_factory().intermediate_keys) == KEYS
    assert key_queries(lambda: [patient.scan for patient in Patient.objects.all()]) == 0


def test_compact_records_alone_tell_their_keys_too() -> None:
    for _ in range(KEYS):
        Patient.objects.create(clinic=Clinic.objects.create(), scan=b"x")
    execute("default", "UPDATE testapp_tenants_patient SET history = ''")
    engine.get_factory().clear()
    preload_keys(Patient.objects.all())
    assert len(engine.get_factory().intermediate_keys) == KEYS
