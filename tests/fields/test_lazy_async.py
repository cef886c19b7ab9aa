"""Reading an attribute in an event loop: what has loaded the row has brought its key, and reading asks no database.

Django's connections refuse to work in an event loop, so that any query of a read would be an error.
"""

from __future__ import annotations

import pickle
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from django.core.exceptions import SynchronousOnlyOperation

from django_asherah import engine
from django_asherah.exceptions import AsherahError, DecryptionError
from tests.fields.event_loop import make_note, run
from tests.fields.helpers import set_raw
from tests.fields.watching import KEYS, is_sealed, make_rotated_notes, sealed_names
from tests.testapp.models import Child, Clinic, Compact, Note, Patient, Visit

pytestmark = pytest.mark.django_db(transaction=True)

TEXTS = [f"text {place}" for place in range(KEYS)]


async def _only_one(rows: Any) -> Any:
    (row,) = [row async for row in rows]
    return row


LOADS: dict[str, Callable[[], Awaitable[Note]]] = {
    "aget": Note.objects.aget,
    "afirst": Note.objects.afirst,
    "alast": Note.objects.alast,
    "alatest": lambda: Note.objects.alatest("pk"),
    "aearliest": lambda: Note.objects.aearliest("pk"),
    "async for": lambda: _only_one(Note.objects.all()),
    "async for over some columns": lambda: _only_one(Note.objects.only("body", "other_body")),
    "aiterator": lambda: _only_one(Note.objects.aiterator()),
    "async for over a union": lambda: _only_one(Note.objects.all().union(Note.objects.filter(pk__lt=0), all=True)),
    "aget_or_create": lambda: _first_of(Note.objects.aget_or_create(title="t")),
    "aupdate_or_create": lambda: _first_of(Note.objects.aupdate_or_create(title="t", defaults={"title": "t"})),
    "ain_bulk": lambda: _value_of(Note.objects.ain_bulk()),
}


async def _first_of(pair: Awaitable[tuple[Note, bool]]) -> Note:
    return (await pair)[0]


async def _value_of(found: Awaitable[dict[Any, Note]]) -> Note:
    return next(iter((await found).values()))


@pytest.mark.parametrize("load", LOADS)
def test_what_was_loaded_is_read_without_a_query(load: str, sent: list[str]) -> None:
    make_note()

    async def work() -> None:
        note = await LOADS[load]()
        assert sealed_names(note) == {"body", "other_body"}
        before = len(sent)
        assert (note.body, note.other_body) == ("x", "y")
        assert len(sent) == before > 0

    run(work)


def test_related_rows_are_read_without_a_query(sent: list[str]) -> None:
    Visit.objects.create(note=make_note(), remark="r")

    async def work() -> None:
        visit = await Visit.objects.select_related("note").aget()
        note = await Note.objects.prefetch_related("visits").aget()
        before = len(sent)
        assert (visit.remark, visit.note.body) == ("r", "x")
        assert [each.remark for each in note.visits.all()] == ["r"]
        assert len(sent) == before

    run(work)


def test_every_format_partition_and_table_is_read_without_a_query(sent: list[str]) -> None:
    Compact.objects.create(body="x", doc=[1], apart="a", json_bytes="j", plain="p")
    Child.objects.create(secret="s", child_secret="c")
    Patient.objects.create(clinic=Clinic.objects.create(), ssn="1", history=[1], scan=b"s", remark="r")

    async def work() -> None:
        row, child, patient = await Compact.objects.aget(), await Child.objects.aget(), await Patient.objects.aget()
        before = len(sent)
        assert (row.body, row.doc, row.apart, row.json_bytes, row.plain) == ("x", [1], "a", "j", "p")
        assert (child.secret, child.child_secret) == ("s", "c")
        assert (patient.ssn, patient.history, patient.scan, patient.remark) == ("1", [1], b"s", "r")
        assert len(sent) == before

    run(work)


def test_values_and_annotations_are_opened_where_they_are_loaded() -> None:
    make_note()

    async def work() -> None:
        assert [row async for row in Note.objects.values("body")] == [{"body": "x"}]
        assert [row async for row in Note.objects.values_list("body", flat=True)] == ["x"]

    run(work)


def test_refreshed_and_deferred_values_are_read_without_a_query(sent: list[str]) -> None:
    make_note()

    async def work() -> None:
        note = await Note.objects.defer("body").aget()
        with pytest.raises(SynchronousOnlyOperation):
            _ = note.body
        await note.arefresh_from_db(fields=["body"])
        before = len(sent)
        assert (note.body, note.other_body) == ("x", "y")
        note.body = "changed"
        await note.arefresh_from_db()
        before = len(sent)
        assert (note.body, note.other_body) == ("x", "y")
        assert len(sent) == before

    run(work)


def test_what_was_saved_is_read_without_a_query(sent: list[str]) -> None:
    make_note()

    async def work() -> None:
        note = await Note.objects.aget()
        note.title = "new"
        await note.asave()
        assert sealed_names(note) == {"body", "other_body"}
        before = len(sent)
        assert note.body == "x"
        assert len(sent) == before
        made = await Note.objects.acreate(body="z")
        assert (await Note.objects.aget(pk=made.pk)).body == "z"

    run(work)


def test_rows_under_many_keys_are_read_without_a_query(sent: list[str]) -> None:
    make_rotated_notes()

    async def work() -> None:
        rows = [note async for note in Note.objects.order_by("pk")]
        assert len([sql for sql in sent if "encryption_key" in sql]) == 2
        before = len(sent)
        assert [row.body for row in rows] == TEXTS
        assert len(sent) == before

    sent.clear()
    run(work)


def test_an_instance_from_a_cache_says_what_to_do() -> None:
    """A limit: a pickle takes no keys along."""
    pickled = pickle.dumps(make_note() and Note.objects.get())

    async def work() -> None:
        note = pickle.loads(pickled)
        with pytest.raises(SynchronousOnlyOperation, match=rf"^testapp\.Note\.body pk={note.pk}: .*sync_to_async"):
            _ = note.body
        assert is_sealed(note, "body")
        assert (await Note.objects.aget()).body == "x"
        assert note.body == "x"  # Its key is cached by now.

    run(work)


@pytest.mark.parametrize("bad", ["no record", None])
def test_an_unreadable_row_is_an_error_of_its_own(bad: str | None) -> None:
    notes = [make_note(body=str(n)) for n in range(3)]
    session = engine.get_session("elsewhere")
    set_raw(notes[1], "body", bad or session.encrypt(b"x"))

    async def work() -> None:
        rows = [note async for note in Note.objects.order_by("pk")]
        assert (rows[0].body, rows[1].other_body, rows[2].body) == ("0", "y", "2")
        with pytest.raises(DecryptionError, match=rf"^testapp\.Note\.body pk={notes[1].pk}: ") as caught:
            _ = rows[1].body
        assert isinstance(caught.value, AsherahError)

    run(work)
