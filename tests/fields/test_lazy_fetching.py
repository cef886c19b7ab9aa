"""Django 6.1's fetch modes: opening a value is no fetch, and what is fetched for many is opened where it is read."""

from __future__ import annotations

import gc
from typing import Any

import django
import pytest
from django.db import models

from django_asherah import engine
from django_asherah.exceptions import DecryptionError
from tests.fields.helpers import set_raw
from tests.fields.watching import KEYS, is_sealed, key_queries, make_rotated_notes, queries, sealed_names
from tests.testapp.models import Child, Clinic, Note, Patient, Visit

pytestmark = [
    pytest.mark.skipif(django.VERSION < (6, 1), reason="Django has fetch modes from 6.1 on"),
    pytest.mark.django_db(transaction=True),
]

M: Any = models


def test_one_is_fetched_for_itself() -> None:
    Note.objects.bulk_create([Note(body="x"), Note(body="y")])
    rows = list(Note.objects.defer("body").fetch_mode(M.FETCH_ONE).order_by("pk"))
    assert len(queries(lambda: rows[0].body)) == 1
    assert (rows[0].body, "body" in vars(rows[1])) == ("x", False)


class TestPeers:
    def rows(self, *names: str) -> list[Note]:
        return list(Note.objects.only(*names).fetch_mode(M.FETCH_PEERS).order_by("pk"))

    def test_a_column_is_fetched_for_all_in_one_query_and_opened_where_it_is_read(self) -> None:
        Note.objects.bulk_create([Note(body=str(n), other_body="o") for n in range(5)])
        rows = self.rows("title")
        assert len(queries(lambda: rows[2].body)) == 1
        assert (vars(rows[2])["body"], [is_sealed(row, "body") for row in rows]) == (
            "2",
            [True, True, False, True, True],
        )
        assert all("other_body" not in vars(row) for row in rows)
        assert queries(lambda: [row.body for row in rows]) == []
        assert [row.body for row in rows] == list("01234")

    def test_the_keys_of_all_cost_two_queries_more(self) -> None:
        make_rotated_notes()
        rows = self.rows("title")
        sent = queries(lambda: rows[0].body)
        assert (len(sent), len([sql for sql in sent if "encryption_key" in sql])) == (3, 2)
        assert queries(lambda: [row.body for row in rows]) == []
        assert [row.body for row in rows] == [f"text {place}" for place in range(KEYS)]

    def test_a_peer_that_does_not_open_does_no_harm(self) -> None:
        notes = [Note.objects.create(body=str(n)) for n in range(3)]
        set_raw(notes[1], "body", "no record")
        rows = self.rows("title")
        assert (rows[0].body, rows[2].body) == ("0", "2")
        with pytest.raises(DecryptionError, match=rf"^testapp\.Note\.body pk={notes[1].pk}: "):
            _ = rows[1].body

    def test_the_one_that_does_not_open_fetches_for_the_others(self) -> None:
        notes = [Note.objects.create(body=str(n)) for n in range(3)]
        set_raw(notes[1], "body", "no record")
        rows = self.rows("title")
        with pytest.raises(DecryptionError, match=rf"^testapp\.Note\.body pk={notes[1].pk}: "):
            _ = rows[1].body
        assert queries(lambda: (rows[0].body, rows[2].body)) == []

    def test_what_a_peer_was_given_or_has_read_stays(self) -> None:
        Note.objects.bulk_create([Note(body=str(n)) for n in range(3)])
        rows = self.rows("title")
        rows[1].body = "given"
        assert [row.body for row in rows] == ["0", "given", "2"]

    def test_peers_that_are_gone_do_no_harm(self) -> None:
        Note.objects.bulk_create([Note(body=str(n)) for n in range(4)])
        rows = self.rows("title")
        del rows[3]
        gc.collect()
        Note.objects.filter(pk=rows[1].pk).delete()
        assert (rows[0].body, rows[2].body) == ("0", "2")
        with pytest.raises(Note.DoesNotExist):
            _ = rows[1].body

    def test_a_plain_column_leaves_the_others_sealed(self) -> None:
        Note.objects.bulk_create([Note(title="t", body="x"), Note(body="y")])
        rows = self.rows("body")
        assert rows[0].title == "t"
        assert [sealed_names(row) for row in rows] == [{"body"}, {"body"}]

    def test_columns_of_both_tables_of_a_child(self) -> None:
        for n in range(3):
            Child.objects.create(secret=f"s{n}", child_secret=f"c{n}")
        list(Child.objects.all())  # Brings the key, which was made in a transaction.
        rows = list(Child.objects.only("changed").fetch_mode(M.FETCH_PEERS).order_by("changed"))
        assert len(queries(lambda: (rows[0].secret, rows[0].child_secret))) == 2
        assert queries(lambda: [(row.secret, row.child_secret) for row in rows]) == []
        assert [(row.secret, row.child_secret) for row in rows] == [(f"s{n}", f"c{n}") for n in range(3)]

    def test_related_rows_are_fetched_for_all_and_stay_sealed(self) -> None:
        for n in range(3):
            Visit.objects.create(note=Note.objects.create(body=str(n)), remark="r")
        visits = list(Visit.objects.fetch_mode(M.FETCH_PEERS).order_by("pk"))
        assert len(queries(lambda: visits[0].note)) == 1
        assert queries(lambda: [visit.note.body for visit in visits[1:]]) == []
        assert is_sealed(visits[0].note, "body")
        assert [visit.note.body for visit in visits] == list("012")

    @pytest.mark.parametrize("names", [("name",), ("clinic", "name")])
    def test_values_whose_partition_the_row_says(self, names: Any) -> None:
        for n in range(3):
            Patient.objects.create(clinic=Clinic.objects.create(), ssn=str(n))
        rows = list(Patient.objects.only(*names).fetch_mode(M.FETCH_PEERS).order_by("pk"))
        engine.get_factory().clear()
        assert [row.ssn for row in rows] == list("012")
        assert queries(lambda: [row.ssn for row in rows]) == []

    def test_two_more_queries_bring_the_keys_of_all_tenants(self) -> None:
        for n in range(3):
            Patient.objects.create(clinic=Clinic.objects.create(), ssn=str(n))
        rows = list(Patient.objects.only("clinic").fetch_mode(M.FETCH_PEERS).order_by("pk"))
        engine.get_factory().clear()
        assert key_queries(lambda: rows[0].ssn) == 2
        assert queries(lambda: [row.ssn for row in rows]) == []


class TestRaise:
    def test_opening_is_no_fetch(self) -> None:
        Note.objects.create(body="x", other_body="y")
        note = Note.objects.fetch_mode(M.FETCH_RAISE).get()
        assert (is_sealed(note, "body"), note.body, note.other_body) == (True, "x", "y")

    def test_a_deferred_column_is_blocked_as_a_plain_one_is(self) -> None:
        from django.core.exceptions import FieldFetchBlocked

        Note.objects.create(title="t", body="x")
        note = Note.objects.fetch_mode(M.FETCH_RAISE).only("other_body").get()
        for name in ("title", "body"):
            with pytest.raises(FieldFetchBlocked, match=rf"Note\.{name}"):
                getattr(note, name)
        note.body = "given"
        assert note.body == "given"

    def test_what_is_blocked_is_saved_as_it_is(self) -> None:
        Note.objects.create(title="t", body="x", other_body="y")
        note = Note.objects.fetch_mode(M.FETCH_RAISE).only("other_body").get()
        note.save()
        read = Note.objects.get()
        assert (read.title, read.body, read.other_body) == ("t", "x", "y")
