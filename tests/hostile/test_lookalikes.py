"""A value that looks like ciphertext is a value: it is encrypted by whatever writes it, and comes back the same.

Fields that stored it as it is, or opened it, are an oracle: who can save and see a value decrypts any record so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core import serializers
from django.db.models import Case, F, Value, When
from django.forms import modelform_factory
from django.test import Client

from django_asherah import engine
from django_asherah.fields import EncryptedJSONField, EncryptedTextField
from tests.fields.helpers import opened, raw
from tests.testapp.models import Document, Note

pytestmark = pytest.mark.django_db

SECRET = "somebody else's secret"


def secret_record() -> str:
    """Return what the column of another row holds."""
    return str(raw(Note.objects.create(body=SECRET), "body"))


LOOKALIKES: dict[str, Callable[[], str]] = {
    "a record of the same field": secret_record,
    "a record with white space": lambda: json.dumps(json.loads(secret_record()), indent=1),
    "a record of another partition": lambda: engine.get_session("elsewhere").encrypt(SECRET.encode()),
    "a record of a record": lambda: engine.get_session().encrypt(secret_record().encode()),
    "the start of a record": lambda: '{"Key":{',
    "half a record": lambda: secret_record()[:100],
    "a compact record's first bytes": lambda: "\x01k\x05'",
    "a repr": lambda: "<SealedValue>",
}


def by_save(text: str) -> Note:
    note = Note(body=text)
    note.save()
    note.save()
    return note


def by_form(text: str) -> Note:
    form = modelform_factory(Note, fields=["body"])({"body": text})
    assert form.is_valid(), form.errors
    note: Note = form.save()
    again = modelform_factory(Note, fields=["title"])({"title": "t"}, instance=note)
    assert again.is_valid()
    again.save()
    return note


def by_admin(text: str) -> Note:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("admin"))
    answer = client.post("/admin/testapp/note/add/", {"title": "", "body": text, "other_body": ""})
    assert answer.status_code == 302
    note = Note.objects.order_by("pk").last()
    assert note is not None
    page = client.get(f"/admin/testapp/note/{note.pk}/change/").context["adminform"].form
    assert page.initial["body"] == text
    client.post(f"/admin/testapp/note/{note.pk}/change/", {"title": "t", "body": page["body"].value()})
    return note


def by_update(text: str) -> Note:
    note = Note.objects.create()
    Note.objects.filter(pk=note.pk).update(body=text)
    return note


def by_update_with_values(text: str) -> Note:
    note = Note.objects.create()
    sealing = Value(text, output_field=EncryptedTextField())
    Note.objects.filter(pk=note.pk).update(body=Case(When(pk=note.pk, then=sealing), default=F("body")))
    return note


def by_bulk_create(text: str) -> Note:
    Note.objects.bulk_create([Note(body=text, title="bulk")])
    return Note.objects.get(title="bulk")


def by_bulk_update(text: str) -> Note:
    note = Note.objects.create()
    note.body = text
    Note.objects.bulk_update([note], ["body"])
    return note


def by_get_or_create(text: str) -> Note:
    return Note.objects.get_or_create(title="new", defaults={"body": text})[0]


def by_update_or_create(text: str) -> Note:
    Note.objects.create(title="old")
    return Note.objects.update_or_create(title="old", defaults={"body": text})[0]


def by_fixture(text: str) -> Note:
    dumped = serializers.serialize("json", [Note(pk=4711, body=text)])
    next(serializers.deserialize("json", dumped)).save()
    return Note.objects.get(pk=4711)


def by_copy_of_another_column(text: str) -> Note:
    note = Note.objects.create(other_body=text)
    Note.objects.filter(pk=note.pk).update(body=F("other_body"))
    return note


WAYS = [
    by_save, by_form, by_admin, by_update, by_update_with_values, by_bulk_create, by_bulk_update, by_get_or_create,
    by_update_or_create, by_fixture, by_copy_of_another_column,
]  # fmt: skip


@pytest.mark.urls("tests.hostile.urls")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", LOOKALIKES)
def test_a_lookalike_is_encrypted_and_comes_back_the_same(way: Callable[[str], Note], name: str) -> None:
    text = LOOKALIKES[name]()
    note = way(text)
    stored = raw(note, "body")
    assert stored != text
    assert opened(note, "body") == text.encode()
    note.refresh_from_db()
    assert note.body == text
    assert list(Note.objects.filter(pk=note.pk).values_list("body", flat=True)) == [text]


@pytest.mark.parametrize("wrap", [lambda text: text, json.loads, lambda text: {"a": [text]}])
def test_a_document_that_looks_like_a_record_is_encrypted(wrap: Callable[[str], Any]) -> None:
    value = wrap(secret_record())
    document = Document.objects.create(doc=value)
    Document.objects.filter(pk=document.pk).update(doc=value)
    assert json.loads(opened(document, "doc")) == value
    document.refresh_from_db()
    assert document.doc == value


@pytest.mark.parametrize("field", [EncryptedTextField(allow_plaintext=True), EncryptedJSONField(allow_plaintext=True)])
@pytest.mark.parametrize("name", LOOKALIKES)
def test_a_field_that_still_reads_plaintext_encrypts_lookalikes_too(field: Any, name: str) -> None:
    from django.db import connection

    text = LOOKALIKES[name]()
    stored = field.get_db_prep_save(text, connection)
    assert stored != text
    assert field.from_db_value(stored, None, connection) == text
    assert field.from_db_value(field.reseal(stored), None, connection) == text
