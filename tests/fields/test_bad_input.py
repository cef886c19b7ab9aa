"""What stands in a column and is not a record of this field: a precise error, never a value, None or a guess."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.test import override_settings

from django_asherah import engine
from django_asherah.exceptions import (
    AsherahError,
    DecryptionError,
    InvalidRecordError,
    KeyNotFoundError,
    PartitionMismatchError,
)
from tests.envelope.fakes import chain_text
from tests.fields.helpers import raw, set_raw
from tests.testapp.models import Document, Note

pytestmark = pytest.mark.django_db

SECRET = "the very secret text"


def changed(text: str, change: Any) -> str:
    document = json.loads(text)
    change(document)
    return json.dumps(document)


def set_meta(name: str, value: Any) -> Any:
    def change(document: dict[str, Any]) -> None:
        document["Key"]["ParentKeyMeta"][name] = value

    return change


def flip(member: str) -> Any:
    def change(document: dict[str, Any]) -> None:
        place = document if member == "Data" else document["Key"]
        first = place[member][0]
        place[member] = ("B" if first == "A" else "A") + place[member][1:]

    return change


def read_again(instance: Any, name: str) -> Any:
    return getattr(type(instance).objects.get(pk=instance.pk), name)


def refreshed(instance: Any, name: str) -> Any:
    instance.refresh_from_db()
    return getattr(instance, name)


CASES: dict[str, tuple[Any, type[AsherahError]]] = {
    "plain text": (lambda text: SECRET, InvalidRecordError),
    "nothing": (lambda text: "", InvalidRecordError),
    "truncated": (lambda text: text[:-1], InvalidRecordError),
    "half": (lambda text: text[: len(text) // 2], InvalidRecordError),
    "with something behind": (lambda text: text + "x", InvalidRecordError),
    "JSON null": (lambda text: "null", InvalidRecordError),
    "another JSON": (lambda text: '{"a": 1}', InvalidRecordError),
    "a flipped payload": (lambda text: changed(text, flip("Data")), DecryptionError),
    "a flipped key": (lambda text: changed(text, flip("Key")), DecryptionError),
    "another partition": (
        lambda text: engine.get_session("elsewhere").encrypt(SECRET.encode()),
        PartitionMismatchError,
    ),
    "another case": (lambda text: text.replace("_IK_default", "_IK_Default"), PartitionMismatchError),
    "an unknown key": (lambda text: changed(text, set_meta("Created", 5)), KeyNotFoundError),
    "an overlong key id": (lambda text: changed(text, set_meta("KeyId", "x" * 300)), InvalidRecordError),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("model", [Note, Document])
def test_the_error_is_precise_and_names_model_and_field(case: str, model: Any) -> None:
    name = "body" if model is Note else "doc"
    instance = model.objects.create(**{name: SECRET})
    change, error = CASES[case]
    bad = change(raw(instance, name))
    set_raw(instance, name, bad)
    where = f"testapp.{model.__name__}.{name}"
    for read, said_of in (
        (lambda: read_again(instance, name), f"{where} pk={instance.pk}: "),
        (lambda: list(model.objects.values_list(name)), f"{where}: "),
        (lambda: refreshed(instance, name), f"{where} pk={instance.pk}: "),
    ):
        with pytest.raises(error, match=f"^{re.escape(said_of)}") as caught:
            read()
        assert type(caught.value) is error
        said = chain_text(caught.value)
        assert SECRET not in said
        assert len(bad) < 20 or bad not in said
    assert raw(instance, name) == bad


def test_another_field_types_record_is_an_error() -> None:
    note, document = Note.objects.create(body="not JSON"), Document.objects.create(doc=1)
    set_raw(document, "doc", raw(note, "body"))
    with pytest.raises(
        DecryptionError, match=r"testapp\.Document\.doc pk=\d+: the record opens, but holds no JSON"
    ) as caught:
        read_again(document, "doc")
    assert caught.value.__context__ is None


def test_bytes_that_are_no_text_are_an_error() -> None:
    note = Note.objects.create(body="x")
    set_raw(note, "body", engine.get_session().encrypt(b"secret \xff"))
    with pytest.raises(DecryptionError, match="holds no UTF-8 text") as caught:
        read_again(note, "body")
    assert "secret" not in chain_text(caught.value)


@pytest.mark.parametrize("value", [5, 1.5, b"bytes", memoryview(b"x"), [], {}])
def test_a_column_value_of_another_type_is_an_error(value: Any) -> None:
    with pytest.raises(InvalidRecordError, match=r"^testapp\.Note\.body: "):
        Note._meta.get_field("body").from_db_value(value, None, None)


def test_another_master_key_gives_an_error_and_not_text() -> None:
    from django_asherah.exceptions import KMSError

    note = Note.objects.create(body=SECRET)
    other = {"SERVICE": "suite", "PRODUCT": "tests", "KMS": "static", "KMS_OPTIONS": {"key": "00" * 32}}
    said = rf"testapp\.Note\.body pk={note.pk}: .*system key _SK_"
    with override_settings(ASHERAH=other), pytest.raises(KMSError, match=said):
        read_again(note, "body")
    note.refresh_from_db()
    assert note.body == SECRET


def test_the_frames_of_an_error_hold_no_plaintext() -> None:
    """Django's debug page prints the local variables of every frame."""
    from django.views.debug import ExceptionReporter

    note = Note(body=SECRET + "\ud800")
    with pytest.raises(AsherahError) as caught:
        note.save()
    reporter = ExceptionReporter(None, caught.type, caught.value, caught.tb)
    variables = [str(frame["vars"]) for frame in reporter.get_traceback_data()["frames"][1:]]
    assert variables
    assert not [text for text in variables if SECRET in text]


def test_a_payload_that_does_not_load_shows_in_no_frame() -> None:
    from django.views.debug import ExceptionReporter

    note = Note.objects.create(body="x")
    set_raw(note, "body", engine.get_session().encrypt(b"the secret \xff"))
    with pytest.raises(DecryptionError) as caught:
        read_again(note, "body")
    reporter = ExceptionReporter(None, caught.type, caught.value, caught.tb)
    variables = [str(frame["vars"]) for frame in reporter.get_traceback_data()["frames"][1:]]
    assert variables
    assert not [text for text in variables if "the secret" in text]
