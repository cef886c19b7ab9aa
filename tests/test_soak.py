"""The load test finds what it looks for. It runs by hand (``make soak``)."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from scripts.soak_journal import CANARY, Journal, hash_of
from scripts.soak_judge import _holds_plaintext, _unconfirmed
from tests.databases import execute
from tests.testapp.models import Note

A, B, C = map(hash_of, "abc")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "0"


@pytest.fixture
def journal(path: Path) -> Journal:
    journal = Journal(path)
    journal.open()
    return journal


class TestJournal:
    def test_what_was_confirmed_is_all_that_a_row_may_hold(self, journal: Journal, path: Path) -> None:
        journal.write("done", "note", 1, A)
        journal.write("try", "note", 1, B)
        assert Journal(path).allowed == journal.allowed == {("note", 1): {A, B}}
        journal.write("done", "note", 1, B)
        assert Journal(path).allowed == {("note", 1): {B}}
        assert Journal(path).counts == {"writes confirmed": 2}

    def test_half_a_line_is_no_confirmation_and_hides_none(self, journal: Journal, path: Path) -> None:
        journal.write("done", "note", 1, A)
        journal.write("done", "note", 2, B)
        path.write_bytes(path.read_bytes()[:-10])
        heir = Journal(path)
        heir.open()
        heir.write("done", "note", 3, C)
        assert Journal(path).allowed == {("note", 1): {A}, ("note", 3): {C}}


@pytest.mark.django_db(transaction=True)
class TestJudge:
    def test_what_stands_is_well(self, journal: Journal) -> None:
        journal.write("done", "note", Note.objects.create(body="a").pk, A)
        journal.write("try", "note", Note.objects.create(body="b").pk, B)
        assert list(_unconfirmed(journal)) == []

    def test_a_lost_row_an_older_value_and_an_unreadable_one_are_found(self, journal: Journal) -> None:
        old, bad = Note.objects.create(body="a"), Note.objects.create(body="c")
        lost = Note.objects.create(body="b").pk
        journal.write("done", "note", old.pk, B)
        journal.write("done", "note", bad.pk, C)
        journal.write("done", "note", lost, B)
        Note.objects.filter(pk=lost).delete()
        execute("default", "UPDATE testapp_note SET body = 'damaged' WHERE id = %s", [bad.pk])
        found = list(_unconfirmed(journal))
        assert found[0] == f"note {old.pk} holds another value than the one that was confirmed"
        assert found[1].startswith(f"note {bad.pk}: InvalidRecordError: ")
        assert found[2].startswith(f"note {lost}: DoesNotExist: ")

    def test_a_file_with_plaintext_is_found(self, path: Path) -> None:
        path.write_bytes(bytes(5000) + CANARY.encode() + bytes(5000))
        assert _holds_plaintext(path)
        path.write_bytes(bytes(5000) + base64.b64encode(CANARY.encode()))
        assert not _holds_plaintext(path)
        assert not _holds_plaintext(path.parent)
