"""What was loaded and not read goes into a new row only if it is a record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_asherah import engine
from django_asherah.exceptions import InvalidRecordError
from django_asherah.fields import EncryptedQuerySet
from tests.fields.helpers import raw, set_raw
from tests.fields.watching import key_queries
from tests.testapp.models import Clinic, Note, Patient

pytestmark = pytest.mark.django_db(transaction=True)

WAYS: dict[str, Callable[[Any], Any]] = {
    "a copy": lambda note: note.save(),
    "forced": lambda note: note.save(force_insert=True),
    "bulk_create": lambda note: Note.objects.bulk_create([note]),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("plain", ["900-12-3456", "", "{"])
def test_a_value_that_was_never_encrypted_is_not_copied_in_plaintext(way: str, plain: str) -> None:
    set_raw(Note.objects.create(body="x"), "body", plain)
    note = Note.objects.get()
    note.pk, note._state.adding = None, True
    with pytest.raises(InvalidRecordError, match=r"^testapp\.Note\.body: "):
        WAYS[way](note)
    assert Note.objects.count() == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_record_is_copied_as_it_is(way: str) -> None:
    first = Note.objects.create(body="x")
    note = Note.objects.get()
    note.pk, note._state.adding = None, True
    WAYS[way](note)
    assert raw(Note.objects.latest("pk"), "body") == raw(first, "body")


def test_the_keys_of_many_rows_that_are_updated_come_together() -> None:
    clinics = Clinic.objects.bulk_create([Clinic(pk=number) for number in range(1, 41)])
    Patient.objects.bulk_create([Patient(clinic=clinic) for clinic in clinics])
    rows = list(Patient.objects.all())
    for row in rows:
        row.ssn = "new"
    engine.get_factory().clear()
    updated = EncryptedQuerySet(Patient)
    assert key_queries(lambda: updated.bulk_update(rows, ["ssn"])) <= 4
    assert {row.ssn for row in Patient.objects.all()} == {"new"}
