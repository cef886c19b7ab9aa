"""Keys that a cache has no room for, or that are due, forgotten or gone, when an event loop reads their values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from pytest_django import Settings

from django_asherah import engine, lifecycle
from django_asherah.models import EncryptionKey
from tests.databases import as_asherah
from tests.fields.event_loop import make_note, run
from tests.fields.watching import KEYS, make_due, make_rotated_notes, rotate_intermediate
from tests.testapp.models import Note

pytestmark = pytest.mark.django_db(transaction=True)

TEXTS = [f"text {place}" for place in range(KEYS)]


ROTATIONS = pytest.mark.parametrize("rotate", [rotate_intermediate, lifecycle.rotate])


@ROTATIONS
@pytest.mark.parametrize("size", [1, KEYS - 1])
def test_rows_under_more_keys_than_the_cache_holds(
    size: int, rotate: Callable[[], Any], settings: Settings, sent: list[str]
) -> None:
    make_rotated_notes(rotate)
    settings.ASHERAH = as_asherah(KEY_CACHE_SIZE=size)

    async def work() -> None:
        rows = [note async for note in Note.objects.order_by("pk")]
        before = len(sent)
        assert [row.body for row in rows] == TEXTS
        assert [row.other_body for row in reversed(rows)] == [f"other {place}" for place in reversed(range(KEYS))]
        assert len(sent) == before

    run(work)


@ROTATIONS
def test_a_key_that_other_rows_have_driven_from_the_cache(rotate: Callable[[], Any], settings: Settings) -> None:
    make_rotated_notes(rotate)
    settings.ASHERAH = as_asherah(KEY_CACHE_SIZE=1)

    async def work() -> None:
        first = await Note.objects.aearliest("pk")
        async for note in Note.objects.order_by("pk"):
            assert note.body in TEXTS
        assert first.body == "text 0"

    run(work)


def test_a_key_that_has_become_due_for_its_check(sent: list[str]) -> None:
    make_note()

    async def work() -> None:
        note = await Note.objects.aget()
        make_due()
        before = len(sent)
        assert (note.body, note.other_body) == ("x", "y")
        assert len(sent) == before

    run(work)


def test_keys_that_were_forgotten_since_the_row_was_loaded() -> None:
    make_note()

    async def work() -> None:
        note = await Note.objects.aget()
        engine.get_factory().clear()
        assert note.body == "x"

    run(work)


def test_a_key_due_for_its_check_is_checked_by_the_next_load(sent: list[str]) -> None:
    make_note()

    async def work() -> None:
        await Note.objects.aget()
        make_due()
        sent.clear()
        note = await Note.objects.aget()
        assert [sql for sql in sent if "encryption_key" in sql] != []
        assert note.body == "x"

    run(work)


def test_a_key_that_is_gone_is_an_error_that_says_where_to_read_it(sent: list[str]) -> None:
    note = make_note()
    EncryptionKey.objects.all().delete()

    async def work() -> None:
        read = await Note.objects.aget()
        with pytest.raises(SynchronousOnlyOperation, match=rf"^testapp\.Note\.body pk={note.pk}: .*sync_to_async"):
            _ = read.body

    run(work)


def test_a_key_that_does_not_open_is_one_too(settings: Settings) -> None:
    note = make_note()
    settings.ASHERAH = as_asherah(KMS_OPTIONS={"key": "00" * 32})

    async def work() -> None:
        read = await Note.objects.aget()
        with pytest.raises(SynchronousOnlyOperation, match=rf"^testapp\.Note\.body pk={note.pk}: .*sync_to_async"):
            _ = read.body

    run(work)
