"""Django's debug page, which shows every local variable of every frame; pickles, migrations and queries."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import FieldError
from django.db import connection
from django.db.migrations.writer import MigrationWriter
from django.db.models import Value
from django.test import RequestFactory, override_settings
from django.views.debug import ExceptionReporter
from pytest_django import Settings

from django_asherah import engine
from django_asherah.exceptions import AsherahError, KMSError
from django_asherah.fields.sealed import PreparedValue, SealedValue
from django_asherah.lifecycle.columns import Row
from django_asherah.lifecycle.swap import Swap
from tests.databases import as_asherah
from tests.fields.helpers import raw, set_raw
from tests.leaks.search import frames_of, holding_frames, holds, shown
from tests.testapp.models import Document, Note

pytestmark = pytest.mark.django_db

CANARY = "canary-Zoë-900-12-3456-plaintext"
STATIC_KEY = "c0ffee00" * 8


@pytest.fixture(autouse=True)
def _key(settings: Settings) -> None:
    # In memory: on a server, keys are committed even inside a test's transaction, and other tests have another key.
    settings.ASHERAH = as_asherah(KMS_OPTIONS={"key": STATIC_KEY}, METASTORE="memory")
    settings.DEBUG = True


def tampered() -> Note:
    """Return a row whose first value opens, and whose second doesn't."""
    note = Note.objects.create(title="t", body=CANARY, other_body=CANARY)
    text = raw(note, "other_body")
    set_raw(note, "other_body", text[:-6] + ("A" if text[-6] != "A" else "B") + text[-5:])
    return note


def another_kms() -> Any:
    return override_settings(ASHERAH=as_asherah(KMS_OPTIONS={"key": "00" * 32}, METASTORE="memory"))


def read_under_another_kms() -> None:
    note = Note.objects.create(body=CANARY)
    with another_kms():
        _ = Note.objects.get(pk=note.pk).body


def read_without_the_key() -> None:
    note = Note.objects.create(body=CANARY)
    engine.reset()
    _ = Note.objects.get(pk=note.pk).body


class FailingKMS:
    """A KMS that is down."""

    def __init__(self, settings: Any) -> None:
        pass

    def encrypt_key(self, key: bytearray) -> bytes:
        raise KMSError("down", {"here": OSError("down")})


def save_without_a_kms() -> None:
    note = Note(body=CANARY)
    with override_settings(ASHERAH=as_asherah(KMS=f"{__name__}.FailingKMS", KMS_OPTIONS={}, METASTORE="memory")):
        note.save()


FAILURES: dict[str, Callable[[], Any]] = {
    "a value that can't be encrypted": lambda: Note.objects.create(body=CANARY + "\ud800"),
    "the same by save": lambda: Note(body=CANARY + "\ud800").save(),
    "the same by update": lambda: Note.objects.update(body=CANARY + "\ud800"),
    "the same by bulk_create": lambda: Note.objects.bulk_create([Note(body=CANARY + "\ud800")]),
    "a document that is no JSON": lambda: Document.objects.create(doc={CANARY: object()}),
    "a document that goes in circles": lambda: Document.objects.create(doc=[CANARY, float("nan")]),
    "a record that does not open": lambda: Note.objects.get(pk=tampered().pk).other_body,
    "the same among values": lambda: Note.objects.values("other_body").get(pk=tampered().pk),
    "another KMS": read_under_another_kms,
    "a key that is gone": read_without_the_key,
    "a KMS that is down": save_without_a_kms,
    "an expression": lambda: Note.objects.create(body=Value(CANARY)),
    "a lookup": lambda: Note.objects.filter(body=CANARY),
}


@pytest.mark.parametrize("name", FAILURES)
def test_no_error_says_a_value_or_a_key(name: str) -> None:
    with pytest.raises((AsherahError, FieldError)) as caught:
        FAILURES[name]()
    said = f"{caught.value!r} {caught.value} {vars(caught.value)}"
    assert holds(said, CANARY.encode(), bytes.fromhex(STATIC_KEY)) == []


GIVEN_BY_DJANGO = {"value", "expression", "sealed", "rhs"}
"""What Django passes to a field or a lookup: its own frames, one further up, show the same."""


@pytest.mark.parametrize("name", FAILURES)
def test_no_frame_of_ours_shows_a_value(name: str) -> None:
    """But for arguments that Django's own frames show as well, and for those no frame shows a key."""
    with pytest.raises((AsherahError, FieldError)) as caught:
        FAILURES[name]()
    ours = {
        variable
        for module, variables in frames_of(caught.value)
        if module.startswith("django_asherah.")
        for variable, value in variables.items()
        if holds(shown(value), CANARY.encode())
    }
    assert ours <= GIVEN_BY_DJANGO
    page = ExceptionReporter(RequestFactory().get("/"), caught.type, caught.value, caught.tb).get_traceback_html()
    assert "Traceback" in page
    assert holds(page, bytes.fromhex(STATIC_KEY)) == []


def test_an_instance_that_fails_at_its_second_value_shows_the_first_in_no_frame() -> None:
    note = Note.objects.get(pk=tampered().pk)
    with pytest.raises(AsherahError) as caught:
        _ = (note.body, note.other_body)
    assert vars(note)["body"] == CANARY
    assert holding_frames(caught.value, CANARY.encode()) == []
    page = ExceptionReporter(RequestFactory().get("/"), caught.type, caught.value, caught.tb).get_traceback_html()
    assert holds(page, CANARY.encode()) == []


def test_values_that_fail_half_way_show_what_opened_in_djangos_frame() -> None:
    """A limit: Django converts a row of values column by column in one of its own frames. See the limitations."""
    note = tampered()
    with pytest.raises(AsherahError) as caught:
        Note.objects.values_list("body", "other_body").get(pk=note.pk)
    where = {
        (module, variable)
        for module, variables in frames_of(caught.value)
        for variable, value in variables.items()
        if holds(shown(value), CANARY.encode())
    }
    assert ("django.db.models.sql.compiler", "row") in where
    assert {module.partition(".")[0] for module, _ in where} <= {"django", "tests"}


def test_the_debug_page_of_a_request_shows_what_was_posted_and_no_more() -> None:
    """A limit: the page shows the request, with or without this app."""
    request = RequestFactory().post("/", {"body": CANARY})
    note = tampered()
    with pytest.raises(AsherahError) as caught:
        _ = Note.objects.only("other_body").get(pk=note.pk).other_body
    page = ExceptionReporter(request, caught.type, caught.value, caught.tb).get_traceback_html()
    assert page.count(CANARY) == 1


def test_an_instance_that_was_made_or_read_holds_the_value_when_pickled() -> None:
    """A limit: a pickle, and so a cache or a session that instances are put into, holds what the instance holds."""
    note = Note.objects.create(body=CANARY)
    engine.get_session()
    pickled = pickle.dumps(note)
    assert holds(pickled, CANARY.encode()) == [CANARY.encode()]
    assert holds(pickled, bytes.fromhex(STATIC_KEY)) == []
    assert pickle.loads(pickled).body == CANARY
    assert holds(repr(note) + str(note), CANARY.encode()) == []


def test_what_carries_a_record_shows_none_of_it() -> None:
    record = engine.get_session().encrypt(b"x")
    assert repr(SealedValue(record)) == "<SealedValue>"
    assert repr(PreparedValue(record)) == "<PreparedValue>"
    assert repr(Row(5, record)) == "<Row 5>"
    assert repr(Swap(5, record, record)) == "<Swap 5>"


def test_a_migration_holds_no_key() -> None:
    for model in (Note, Document):
        for field in model._meta.fields:
            written = MigrationWriter.serialize(field)[0]
            assert holds(written, bytes.fromhex(STATIC_KEY), b"suite", b"c0ffee") == []


def test_queries_hold_records_only() -> None:
    connection.queries_log.clear()
    with override_settings(DEBUG=True):
        connection.force_debug_cursor = True
        try:
            Note.objects.create(body=CANARY)
            Note.objects.update(body=CANARY)
        finally:
            connection.force_debug_cursor = False
    sent = "\n".join(query["sql"] for query in connection.queries)
    assert "_IK_default" in sent
    assert holds(sent, CANARY.encode(), bytes.fromhex(STATIC_KEY)) == []
