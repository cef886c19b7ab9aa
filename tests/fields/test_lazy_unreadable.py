"""What can't be opened costs its page nothing, is an error where it is read, and outlives a save of its row."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from pytest_django import Settings

from django_asherah import engine
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta
from django_asherah.exceptions import (
    AsherahError,
    DecryptionError,
    InvalidRecordError,
    KeyNotFoundError,
    MetastoreError,
    PartitionMismatchError,
)
from django_asherah.metastores.memory import MemoryMetastore
from django_asherah.models import EncryptionKey
from tests.databases import as_asherah
from tests.fields.helpers import opened, raw, set_raw
from tests.fields.watching import is_sealed, queries, sealed_names
from tests.testapp.models import Child, Clinic, Compact, Note, Parent, Patient

pytestmark = pytest.mark.django_db(transaction=True)


def _flipped(text: str) -> str:
    return text[:-6] + ("A" if text[-6] != "A" else "B") + text[-5:]


def _under_an_unknown_key(text: str) -> str:
    document = json.loads(text)
    document["Key"]["ParentKeyMeta"]["Created"] = 5
    return json.dumps(document)


BAD: dict[str, tuple[Callable[[str], str], type[AsherahError]]] = {
    "damaged": (_flipped, DecryptionError),
    "truncated": (lambda text: text[:-9], InvalidRecordError),
    "no record": (lambda text: "no record", InvalidRecordError),
    "empty": (lambda text: "", InvalidRecordError),
    "under an unknown key": (_under_an_unknown_key, KeyNotFoundError),
    "of another partition": (lambda text: engine.get_session("elsewhere").encrypt(b"x"), PartitionMismatchError),
}


class TestUnreadable:
    @pytest.fixture(params=BAD)
    def bad(self, request: pytest.FixtureRequest) -> Note:
        """A row with a value that does not open, between rows whose values do."""
        notes = [Note.objects.create(title=str(place), body="x", other_body="y") for place in range(3)]
        set_raw(notes[1], "body", BAD[request.param][0](raw(notes[1], "body")))
        self.error = BAD[request.param][1]
        return notes[1]

    def test_a_list_of_rows_costs_nothing_more(self, bad: Note) -> None:
        list(Note.objects.all())
        sent = queries(lambda: list(Note.objects.all()))
        assert [sql for sql in sent if "encryption_key" not in sql] == sent[:1]
        # A key that is not there is asked for once more.
        assert len(sent) <= 1 + (self.error is KeyNotFoundError)

    def test_the_others_open(self, bad: Note) -> None:
        rows = {row.pk: row for row in Note.objects.all()}
        broken = rows.pop(bad.pk)
        assert [(row.body, row.other_body) for row in rows.values()] == [("x", "y")] * 2
        assert (broken.title, broken.other_body) == ("1", "y")
        for _ in range(2):
            with pytest.raises(self.error, match=rf"^testapp\.Note\.body pk={bad.pk}: ") as caught:
                _ = broken.body
            assert type(caught.value) is self.error
        assert is_sealed(broken, "body")

    def test_saving_it_keeps_its_record(self, bad: Note) -> None:
        before = raw(bad, "body")
        row = Note.objects.get(pk=bad.pk)
        row.save()
        row.title, row.other_body = "new", "new"
        row.save()
        row.save(update_fields=["body"])
        with pytest.raises(self.error):
            _ = row.body
        row.save()
        with suppress(InvalidRecordError):  # What is no record at all goes into no new row.
            Note.objects.bulk_create([Note.objects.get(pk=bad.pk)], ignore_conflicts=True)
        assert raw(bad, "body") == before
        assert (Note.objects.get(pk=bad.pk).title, opened(bad, "other_body")) == ("new", b"new")

    def test_a_new_value_takes_its_place(self, bad: Note) -> None:
        row = Note.objects.get(pk=bad.pk)
        row.body = "new"
        row.save()
        assert Note.objects.get(pk=bad.pk).body == "new"

    def test_it_is_deleted(self, bad: Note) -> None:
        Note.objects.get(pk=bad.pk).delete()
        Note.objects.all().delete()
        assert not Note.objects.exists()

    def test_it_is_refreshed(self, bad: Note) -> None:
        row = Note.objects.get(pk=bad.pk)
        Note.objects.filter(pk=bad.pk).update(title="new")
        row.refresh_from_db()
        assert row.title == "new"

    def test_values_of_it_are_an_error(self, bad: Note) -> None:
        with pytest.raises(self.error, match=r"^testapp\.Note\.body: "):
            list(Note.objects.values("body"))
        assert len(Note.objects.values("other_body")) == 3


def test_unreadable_bytes_are_kept() -> None:
    row = Compact.objects.create(body="x", plain="p")
    for bad in (b"", b"\x01", b"\x02\xff" * 60, engine.get_session("elsewhere").encrypt_compact(b"x")):
        set_raw(row, "body", bad)
        read = Compact.objects.get()
        read.plain = "new"
        read.save()
        with pytest.raises(DecryptionError, match=rf"^testapp\.Compact\.body pk={row.pk}: "):
            _ = read.body
        assert (raw(row, "body"), Compact.objects.get().plain) == (bad, "new")


def test_another_tenants_value_is_an_error_of_its_own_row_and_is_kept() -> None:
    ours, theirs = (
        Patient.objects.create(clinic=Clinic.objects.create(), ssn=ssn, scan=ssn.encode()) for ssn in ("1", "2")
    )
    for name in ("ssn", "scan"):
        set_raw(ours, name, raw(theirs, name))
    mine, other = Patient.objects.order_by("pk")
    assert (other.ssn, other.scan) == ("2", b"2")
    for name in ("ssn", "scan"):
        with pytest.raises(PartitionMismatchError, match=rf"^testapp\.Patient\.{name} pk={ours.pk}: "):
            getattr(mine, name)
    mine.name = "new"
    mine.save()
    assert [raw(ours, name) for name in ("ssn", "scan")] == [raw(theirs, name) for name in ("ssn", "scan")]


def test_rows_are_loaded_when_their_keys_are_gone() -> None:
    Note.objects.create(body="x")
    EncryptionKey.objects.all().delete()
    engine.reset()
    note = Note.objects.get()
    note.title = "new"
    note.save()
    assert Note.objects.get().title == "new"
    assert sealed_names(note) == {"body", "other_body"}
    with pytest.raises(KeyNotFoundError, match=rf"^testapp\.Note\.body pk={note.pk}: "):
        _ = note.body


class FailingMetastore(MemoryMetastore):
    """A metastore that is down."""

    def __init__(self, settings: Any) -> None:
        super().__init__()

    def load(self, meta: KeyMeta) -> EnvelopeKeyRecord | None:
        raise MetastoreError("down")

    def load_many(self, metas: Sequence[KeyMeta]) -> dict[KeyMeta, EnvelopeKeyRecord]:
        raise MetastoreError("down")


def test_rows_are_loaded_when_the_metastore_is_down(settings: Settings) -> None:
    Note.objects.create(title="t", body="x")
    settings.ASHERAH = as_asherah(METASTORE=f"{__name__}.FailingMetastore")
    note = Note.objects.get()
    assert note.title == "t"
    with pytest.raises(MetastoreError, match=rf"^testapp\.Note\.body pk={note.pk}: down"):
        _ = note.body


def test_they_are_saved_unread_when_the_metastore_is_down(settings: Settings) -> None:
    before = raw(Note.objects.create(body="x"), "body")
    settings.ASHERAH = as_asherah(METASTORE=f"{__name__}.FailingMetastore")
    note = Note.objects.get()
    note.title = "new"
    note.save()
    assert (raw(note, "body"), Note.objects.get().title) == (before, "new")


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("changes", [{"METASTORE": "memory"}, {"DATABASE": "other"}])
def test_an_unreadable_row_is_saved_when_its_keys_are_in_another_store(
    bad: str, changes: dict[str, Any], settings: Settings
) -> None:
    settings.ASHERAH = as_asherah(**changes)
    note = Note.objects.create(body="x")
    record = BAD[bad][0](raw(note, "body"))
    set_raw(note, "body", record)
    read = Note.objects.get()
    read.title = "new"
    read.save()
    assert (raw(note, "body"), Note.objects.get().title) == (record, "new")


def test_an_unreadable_row_of_two_tables_is_deleted() -> None:
    child = Child.objects.create(secret="s")
    set_raw(child, "secret", "no record")
    Child.objects.get().delete()
    assert not Parent.objects.exists()
