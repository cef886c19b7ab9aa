"""Pickled, cached, copied and shown: an instance that was not read gives no value away, and its copies open."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.db.models import F
from django.http import HttpResponse
from django.test import RequestFactory
from django.views.debug import technical_500_response
from pytest_django import Settings

from django_asherah import engine
from django_asherah.envelope.session import Session
from tests.databases import as_asherah
from tests.fields.watching import is_sealed
from tests.leaks.search import holds
from tests.testapp.models import Child, Clinic, Compact, Document, Note, Patient, Visit

pytestmark = pytest.mark.django_db

CANARY = "canary-Zoë-900-12-3456-plaintext"
STATIC_KEY = "c0ffee00" * 8


@pytest.fixture(autouse=True)
def _rows(settings: Settings) -> None:
    settings.ASHERAH = as_asherah(SERVICE="copies", KMS_OPTIONS={"key": STATIC_KEY})  # Servers keep keys.
    note = Note.objects.create(title="t", body=CANARY, other_body=CANARY)
    Visit.objects.create(note=note, remark=CANARY)
    Document.objects.create(doc={"text": CANARY}, encoded=[CANARY])
    Compact.objects.create(body=CANARY, doc=[CANARY], apart=CANARY, json_bytes=CANARY, plain=CANARY)
    Child.objects.create(secret=CANARY, child_secret=CANARY)
    Patient.objects.create(clinic=Clinic.objects.create(), ssn=CANARY, history=[CANARY], remark=CANARY)


def _refreshed() -> Note:
    note = Note.objects.get()
    note.refresh_from_db()
    return note


def _with_a_column_loaded_later() -> Note:
    note = Note.objects.defer("title", "body").get()
    assert note.title == "t"
    return note


def _saved() -> Note:
    note = Note.objects.get()
    note.save()
    return note


UNREAD: dict[str, Any] = {
    "loaded": Note.objects.get,
    "a document": Document.objects.get,
    "compact": Compact.objects.get,
    "of two tables": Child.objects.get,
    "of a tenant": Patient.objects.get,
    "with a related one": lambda: Visit.objects.select_related("note").get(),
    "with prefetched ones": lambda: Note.objects.prefetch_related("visits").get(),
    "of a raw query": lambda: Note.objects.raw("SELECT * FROM testapp_note")[0],
    "deferred": lambda: Note.objects.only("title").get(),
    "deferred and loaded later": _with_a_column_loaded_later,
    "saved": _saved,
    "copied": lambda: copy.copy(Note.objects.get()),
    "deep-copied": lambda: copy.deepcopy(Note.objects.get()),
    "unpickled": lambda: pickle.loads(pickle.dumps(Note.objects.get())),
    "a list": lambda: list(Note.objects.all()),
    "a queryset": Note.objects.all,
    "refreshed": _refreshed,
}


def nothing_in(blob: bytes | str) -> bool:
    return holds(blob, CANARY.encode(), bytes.fromhex(STATIC_KEY)) == []


@pytest.mark.parametrize("make", UNREAD)
def test_a_pickle_of_what_was_not_read_holds_no_value(make: str) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert nothing_in(pickle.dumps(UNREAD[make](), protocol))


@pytest.mark.parametrize("make", UNREAD)
def test_a_repr_of_what_was_not_read_holds_no_value(make: str) -> None:
    made = UNREAD[make]()
    held = vars(made) if hasattr(made, "_meta") else [vars(each) for each in made]
    assert nothing_in(f"{made!r} {made} {held!r}")


def _fail(*held: Any) -> HttpResponse:
    """Return the debug page of a view that fails while it holds these."""
    state = [vars(each) for each in held if hasattr(each, "_meta")]
    try:
        raise RuntimeError(f"the view fails with {len(state)} instances")  # noqa: TRY301 - a frame to show
    except RuntimeError:
        return technical_500_response(RequestFactory().get("/"), *sys.exc_info())


@pytest.mark.parametrize("make", UNREAD)
def test_a_debug_page_that_shows_what_was_not_read_holds_no_value(make: str, settings: Settings) -> None:
    settings.DEBUG = True
    made = UNREAD[make]()
    page = _fail(made).content.decode()
    assert "the view fails" in page
    assert nothing_in(page)


def test_a_debug_page_shows_what_was_read_and_the_frame_holds(settings: Settings) -> None:
    settings.DEBUG = True
    note = Note.objects.get()
    assert note.body == CANARY
    assert CANARY in _fail(note).content.decode()


def test_a_pickle_of_what_was_read_holds_its_value_and_no_other() -> None:
    Compact.objects.update(body="another-text-for-a-pickle")
    row = Compact.objects.get()
    assert row.body == "another-text-for-a-pickle"
    pickled = pickle.dumps(row)
    assert b"another-text-for-a-pickle" in pickled
    assert nothing_in(pickled)
    assert pickle.loads(pickled).body == "another-text-for-a-pickle"


def test_annotations_and_values_are_pickled_as_they_are() -> None:
    assert not nothing_in(pickle.dumps(Note.objects.annotate(copy=F("body")).get()))
    assert not nothing_in(pickle.dumps(list(Note.objects.values("body"))))


EVALUATED: dict[str, Callable[[], Any]] = {
    "instances": Note.objects.all,
    "values": lambda: Note.objects.values("pk", "body"),
    "an annotation": lambda: Note.objects.annotate(copy=F("body")),
    "a related annotation": lambda: Visit.objects.annotate(copy=F("note__body")),
}


@pytest.mark.parametrize("name", EVALUATED)
def test_a_query_that_has_read_rows_is_copied(name: str) -> None:
    rows = EVALUATED[name]()
    first = list(rows)
    again = rows.all()
    again.query = copy.deepcopy(rows.query)
    assert list(again) == first
    assert len(copy.deepcopy(rows)) == len(first)


@pytest.mark.parametrize("name", EVALUATED)
def test_a_query_that_has_read_rows_is_pickled_and_holds_no_key(name: str) -> None:
    """A key can be neither pickled nor copied."""
    rows = EVALUATED[name]()
    first = list(rows)
    again = rows.all()
    again.query = pickle.loads(pickle.dumps(rows.query))
    assert list(again) == first
    assert len(pickle.loads(pickle.dumps(rows))) == len(first)


@pytest.fixture(params=["locmem", "filebased"])
def cache(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Any:
    backend = (
        f"django.core.cache.backends.{request.param}.{'LocMemCache' if request.param == 'locmem' else 'FileBasedCache'}"
    )
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(tmp_path)}}
    return caches["default"]


def contents(cache: Any) -> list[bytes]:
    """Return what a cache holds, as the bytes that it pickled."""
    if hasattr(cache, "_cache"):
        return list(cache._cache.values())
    found = []
    for path in Path(cache._dir).iterdir():
        with path.open("rb") as file:
            pickle.load(file)  # The time at which it expires.
            found.append(zlib.decompress(file.read()))
    return found


@pytest.mark.parametrize(
    "make", ["loaded", "a document", "compact", "of two tables", "with a related one", "a queryset"]
)
def test_a_cache_of_what_was_not_read_holds_no_value_and_what_it_gives_opens(make: str, cache: Any) -> None:
    cache.set("key", UNREAD[make]())
    (content,) = contents(cache)
    assert b"SealedValue" in content
    assert nothing_in(content)
    engine.reset()
    (row,) = found if hasattr(found := cache.get("key"), "model") else [found]
    opened = [getattr(row, name) for name in list(vars(row)) if is_sealed(row, name)]
    assert opened
    assert all(
        CANARY in (value, *(value if isinstance(value, list) else ()), *getattr(value, "values", tuple)())
        for value in opened
    )


@pytest.mark.parametrize("make", [name for name in UNREAD if name not in ("a list", "a queryset")])
def test_an_unpickled_instance_opens_in_another_state_of_the_process(make: str) -> None:
    pickled = pickle.dumps(UNREAD[make]())
    engine.reset()
    row = pickle.loads(pickled)
    names = [field.attname for field in row._meta.concrete_fields if type(field).__name__.startswith("Encrypted")]
    assert names
    values = {name: value for name in names if (value := getattr(row, name)) is not None}
    assert len(values) >= len(names) - 1  # No scan of the patient.
    assert all(CANARY in str(value) for value in values.values())


def test_an_unpickled_instance_is_saved_with_the_same_record() -> None:
    (before,) = Note.objects.values_list(Note._meta.get_field("body").raw_value())
    pickled = pickle.dumps(Note.objects.get())
    engine.reset()
    pickle.loads(pickled).save()
    assert list(Note.objects.values_list(Note._meta.get_field("body").raw_value())) == [before]


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda note: pickle.loads(pickle.dumps(note))])
def test_reading_a_copy_leaves_the_original_sealed(duplicate: Callable[[Any], Any]) -> None:
    note = Note.objects.get()
    other = duplicate(note)
    assert other.body == CANARY
    assert [is_sealed(note, "body"), is_sealed(other, "body"), is_sealed(other, "other_body")] == [True, False, True]
    other.body = "changed"
    assert note.body == CANARY


class MeetingSession(Session):
    """Opens a record only when another thread opens one, too."""

    meeting = threading.Barrier(2, timeout=30)

    def decrypt(self, *args: Any) -> bytes:
        opened = super().decrypt(*args)
        self.meeting.wait()
        return opened


def test_threads_that_read_one_attribute_at_a_time_get_one_object(settings: Settings) -> None:
    settings.ASHERAH = as_asherah(METASTORE="memory")  # Other threads don't see this one's transaction.
    engine.use_session_type(MeetingSession)
    document = Document.objects.get(pk=Document.objects.create(doc={"text": CANARY}).pk)
    got: list[Any] = []
    threads = [threading.Thread(target=lambda: got.append(document.doc)) for _ in range(2)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
    finally:
        engine.use_session_type(Session)
    assert got == [{"text": CANARY}] * 2
    assert got[0] is got[1] is document.doc
