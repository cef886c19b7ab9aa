"""What was not read is written back as it was found, and costs neither a key nor a cipher."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, connections, models, transaction

from django_asherah import engine
from django_asherah.envelope.session import Session
from django_asherah.exceptions import EncryptionError
from tests.databases import VENDOR
from tests.fields.helpers import raw, set_raw
from tests.fields.rows import MAKES, copied, encrypted_names, records
from tests.fields.watching import CountedSession, key_queries, sealed_names
from tests.testapp.models import Child, Compact, Document, Note, Patient, Typed

pytestmark = pytest.mark.django_db


def _forget(row: models.Model) -> None:
    """Delete the row of each of its tables, and load nothing to do so."""
    for model in (type(row), *row._meta.all_parents):
        model._base_manager.all()._raw_delete("default")


def _inserted(row: models.Model) -> models.Model:
    _forget(row)
    row.save(force_insert=True)
    return row


def _bulk_created(row: models.Model) -> models.Model:
    _forget(row)
    return row.__class__._base_manager.bulk_create([row])[0]


def _after(save: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def write(row: models.Model) -> models.Model:
        save(row)
        return row

    return write


WRITES: dict[str, Callable[[Any], Any]] = {
    "save": _after(lambda row: row.save()),
    "two saves": _after(lambda row: (row.save(), row.save())),
    "force_update": _after(lambda row: row.save(force_update=True)),
    "update_fields": _after(lambda row: row.save(update_fields=encrypted_names(type(row)))),
    "force_insert": _inserted,
    "bulk_create": _bulk_created,
    "a copy's save": _after(lambda row: copy.copy(row).save()),
    "a deep copy's save": _after(lambda row: copy.deepcopy(row).save()),
    "an unpickled one's save": _after(lambda row: pickle.loads(pickle.dumps(row)).save()),
}


@pytest.fixture
def calls() -> Iterator[Any]:
    """Sessions that count their calls."""
    engine.use_session_type(CountedSession)
    CountedSession.calls.clear()
    yield CountedSession.calls
    engine.use_session_type(Session)


@pytest.mark.parametrize("model", MAKES)
@pytest.mark.parametrize("write", WRITES)
def test_what_was_not_read_is_written_back_byte_for_byte(model: Any, write: str, calls: Any) -> None:
    if model is Child and write == "bulk_create":
        pytest.skip("Django refuses to bulk_create multi-table models")
    MAKES[model]()
    row = model.objects.get()
    before, names = records(row), sealed_names(row)
    assert names == {name for name, record in before.items() if record is not None}
    calls.clear()
    row = WRITES[write](row)
    assert calls == {}
    assert records(row) == before
    assert sealed_names(row) == names
    assert calls == {}


@pytest.mark.parametrize("model", [Note, Document, Compact, Typed, Patient])
def test_a_copy_under_another_primary_key_holds_the_same_records(model: Any, calls: Any) -> None:
    MAKES[model]()
    before = records(model.objects.get())
    calls.clear()
    row = copied(model.objects.get())
    assert calls == {}
    assert [records(each) for each in model.objects.order_by("pk")] == [before, before]
    assert model.objects.latest("pk") == row


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("model", MAKES)
def test_it_asks_for_no_key(model: Any) -> None:
    MAKES[model]()
    row, plain = model.objects.get(), model.objects.get()
    engine.get_factory().clear()
    assert key_queries(lambda: (row.save(), plain.save(update_fields=encrypted_names(model)))) == 0


@pytest.mark.django_db(transaction=True)
def test_conflicts_are_updated_with_the_same_record() -> None:
    MAKES[Note]()
    note = Note.objects.get()
    before = records(note)
    options: dict[str, Any] = {"update_conflicts": True, "update_fields": ["title", "body", "other_body"]}
    if connection.features.supports_update_conflicts_with_target:
        options["unique_fields"] = ["pk"]
    note.title = "new"
    engine.get_factory().clear()
    assert key_queries(lambda: Note.objects.bulk_create([note], **options)) == 0
    assert (records(note), Note.objects.get().title) == (before, "new")


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@pytest.mark.parametrize("model", [Note, Compact, Document])
def test_another_database_gets_the_same_records(model: Any) -> None:
    MAKES[model]()
    row = model.objects.get()
    row.save(using="other")
    for name, record in records(row).items():
        with connections["other"].cursor() as cursor:
            cursor.execute(f"SELECT {name} FROM {model._meta.db_table}")
            assert cursor.fetchone()[0] == record
    there = model.objects.using("other").get()
    there.save()
    assert sealed_names(there) == sealed_names(row) != set()
    name = encrypted_names(model)[0]
    assert getattr(there, name) == getattr(row, name)


@pytest.mark.skipif(VENDOR != "sqlite", reason="a server commits a key at once")
@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_another_database_gets_no_record_that_could_outlive_its_key() -> None:
    with transaction.atomic():
        MAKES[Note]()
        note = Note.objects.get()
        with pytest.raises(EncryptionError, match=r"^testapp\.Note\.body: key .* is not committed"):
            note.save(using="other")
        assert not Note.objects.using("other").exists()
    note = Note.objects.get()
    note.save(using="other")
    assert Note.objects.using("other").get().body == "x"


@pytest.mark.parametrize("load", [lambda: Note.objects.defer("body").get(), lambda: Note.objects.only("title").get()])
def test_deferred_columns_are_not_written(load: Any) -> None:
    MAKES[Note]()
    before = records(Note.objects.get())
    note = load()
    note.title = "new"
    note.save()
    assert "body" not in vars(note)
    assert (records(note), Note.objects.get().title) == (before, "new")


def test_one_value_is_changed_and_the_others_keep_their_records(calls: Any) -> None:
    MAKES[Compact]()
    row = Compact.objects.get()
    before = records(row)
    row.body = row.body.upper()
    calls.clear()
    row.save()
    assert calls == {"seal": 1}
    after = records(row)
    assert {name for name in after if after[name] != before[name]} == {"body"}
    assert Compact.objects.get().body == "X"


def test_a_new_row_is_sealed_once(calls: Any) -> None:
    Note.objects.create(body="x", other_body="y")
    assert calls == {"seal": 2}


def test_what_stands_in_the_column_and_is_no_record_is_kept() -> None:
    MAKES[Note]()
    note = Note.objects.get()
    set_raw(note, "body", "no record at all")
    read = Note.objects.get()
    read.title = "new"
    read.save()
    assert raw(note, "body") == "no record at all"
