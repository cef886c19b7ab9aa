"""What needs no value of a row works where that value can't be opened."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from django.db.models.signals import post_delete, pre_delete
from django.forms import modelform_factory

from tests.fields.helpers import raw, set_raw
from tests.fields.watching import is_sealed
from tests.testapp.models import Note, Visit

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def visit() -> Visit:
    """A visit of a note whose record is none."""
    note = Note.objects.create(title="t", body="x", other_body="y")
    set_raw(note, "body", "no record")
    return Visit.objects.create(note=note)


def test_deleting_it_cascades_and_tells_receivers(visit: Visit) -> None:
    told: list[tuple[str, Any]] = []

    def receive(signal: Any, instance: Any, **kwargs: Any) -> None:
        told.append(("pre" if signal is pre_delete else "post", type(instance)))

    for signal in (pre_delete, post_delete):
        signal.connect(receive)
    try:
        assert Note.objects.all().delete()[0] == 2
    finally:
        for signal in (pre_delete, post_delete):
            signal.disconnect(receive)
    assert sorted(told, key=str) == sorted([(when, of) for when in ("pre", "post") for of in (Note, Visit)], key=str)
    assert not Visit.objects.exists()


def test_it_is_selected_and_prefetched_sealed(visit: Visit) -> None:
    for rows in (Visit.objects.select_related("note"), Visit.objects.prefetch_related("note")):
        assert is_sealed(rows.get().note, "body")
    assert list(Note.objects.prefetch_related("visits").get().visits.all()) == [visit]


def test_other_columns_are_refreshed_and_saved(visit: Visit) -> None:
    row = Note.objects.get()
    row.title = "new"
    row.save(update_fields=["title"])
    row.refresh_from_db(fields=["title"])
    assert (row.title, raw(row, "body")) == ("new", "no record")


def test_it_is_copied_and_pickled_sealed(visit: Visit) -> None:
    row = Note.objects.get()
    assert all(is_sealed(each, "body") for each in (copy.copy(row), pickle.loads(pickle.dumps(row))))


def test_a_select_names_it(visit: Visit) -> None:
    assert f'value="{visit.note_id}"' in str(modelform_factory(Visit, fields=["note"])()["note"])
