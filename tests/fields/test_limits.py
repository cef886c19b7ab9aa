"""What the limitations list: queries that no field can refuse, and saves of what was loaded before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db.models.expressions import RawSQL

from tests.testapp.models import Note

pytestmark = pytest.mark.django_db

notes = Note.objects

FOUND: dict[str, tuple[Callable[[], Any], int]] = {
    "extra where": (lambda: notes.extra(where=["body = %s"], params=["x"]), 0),
    "RawSQL": (lambda: notes.filter(title=RawSQL("body", [])), 0),
    "raw": (lambda: notes.raw("SELECT * FROM testapp_note WHERE body = 'x'"), 0),
}


@pytest.mark.parametrize("name", FOUND)
def test_records_are_compared_and_no_two_are_equal(name: str) -> None:
    for _ in range(2):
        notes.create(title="x", body="x", other_body="x")
    query, expected = FOUND[name]
    assert len(list(query())) == expected


@pytest.mark.parametrize("is_read", [False, True])
def test_a_save_overwrites_what_was_written_since_the_load_unread_or_not(is_read: bool) -> None:
    """As with a plain field, and as long as nobody names ``update_fields``."""
    notes.create(title="t", body="old")
    early, late = notes.get(), notes.get()
    if is_read:
        assert early.body == "old"
    late.body = "new"
    late.save()
    early.save(update_fields=["title"])
    assert notes.get().body == "new"
    early.save()
    assert notes.get().body == "old"
