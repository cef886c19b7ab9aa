"""EncryptedTextField: values, forms, validation."""

from __future__ import annotations

import pytest
from django import forms
from django.core.exceptions import ValidationError
from django.forms.models import modelform_factory
from django.utils.translation import gettext_lazy

from django_asherah.exceptions import EncryptionError
from django_asherah.fields import EncryptedTextField
from tests.fields.helpers import opened, raw
from tests.testapp.models import Choosy, Note

pytestmark = pytest.mark.django_db

LOOKALIKE = (
    '{"Key":{"Created":1,"Key":"AAAA","ParentKeyMeta":{"KeyId":"_IK_default_suite_tests","Created":1}},"Data":"AA=="}'
)


@pytest.mark.parametrize(
    "text",
    ["", " ", "a", "0", "None", "null", "héllo wörld", "王🔑", "a\0b", "\n\r\t", "x" * 1_000_000, "{}", LOOKALIKE],
    ids=lambda text: repr(text[:20]),
)
def test_every_text_comes_back_and_none_is_seen_by_the_database(text: str) -> None:
    note = Note.objects.create(body=text)
    assert Note.objects.get(pk=note.pk).body == text
    assert opened(note, "body") == text.encode()


def test_none_is_sql_null() -> None:
    note = Note.objects.create(body=None)
    assert raw(note, "body") is None
    note.refresh_from_db()
    assert note.body is None


def test_the_same_text_is_another_record_each_time() -> None:
    first, second = Note.objects.create(body="x"), Note.objects.create(body="x")
    assert raw(first, "body") != raw(second, "body")


def test_a_record_as_a_value_is_encrypted_once_more() -> None:
    record = raw(Note.objects.create(body="inner"), "body")
    note = Note.objects.create(body=record)
    note.refresh_from_db()
    assert note.body == record
    note.save()
    note.refresh_from_db()
    assert note.body == record
    assert opened(note, "body").decode() == record


@pytest.mark.parametrize(
    ("value", "text"), [(5, "5"), (0, "0"), (False, "False"), (1.5, "1.5"), (gettext_lazy("Yes"), "Yes")]
)
def test_other_values_become_text_as_with_a_text_field(value: object, text: str) -> None:
    note = Note.objects.create(body=value)
    note.refresh_from_db()
    assert note.body == text


def test_lone_surrogates_are_refused_without_the_text() -> None:
    with pytest.raises(EncryptionError, match=r"testapp\.Note\.body: the text holds lone surrogates") as caught:
        Note.objects.create(body="secret\ud800")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert "secret" not in str(caught.value)


def test_a_default_is_encrypted() -> None:
    choosy = Choosy.objects.create(short="x")
    assert opened(choosy, "colour") == b"r"
    assert opened(choosy, "digits") == b""


def test_choices_and_validators_see_the_text() -> None:
    with pytest.raises(ValidationError) as caught:
        Choosy(short="x", colour="blue", digits="a1").full_clean()
    assert set(caught.value.message_dict) == {"colour", "digits"}
    assert Choosy(short="x", colour="g").get_colour_display() == "green"


def test_forms_have_the_usual_fields() -> None:
    form = modelform_factory(Choosy, fields="__all__")
    assert isinstance(form.base_fields["short"].widget, forms.Textarea)
    assert form.base_fields["short"].max_length == 5
    assert isinstance(form.base_fields["colour"], forms.TypedChoiceField)
    assert not form(data={"short": "123456", "colour": "r"}).is_valid()
    bound = form(data={"short": "ÄÖÜß!", "colour": "g", "digits": "12"})
    assert bound.is_valid(), bound.errors
    choosy = bound.save()
    choosy.refresh_from_db()
    assert (choosy.short, choosy.colour, choosy.digits) == ("ÄÖÜß!", "g", "12")
    assert form(instance=choosy).initial["short"] == "ÄÖÜß!"


def test_the_column_is_text_on_every_backend() -> None:
    from django.db import connection

    expected = {"sqlite": "text", "postgresql": "text", "mysql": "longtext"}[connection.vendor]
    assert EncryptedTextField(max_length=5).db_type(connection) == expected
