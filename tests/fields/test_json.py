"""EncryptedJSONField: whole documents, all types intact."""

from __future__ import annotations

import datetime
import decimal
import json
import uuid
from typing import Any

import pytest
from django.db import connection
from django.db.models import JSONField, Value
from django.forms.models import modelform_factory

from django_asherah.exceptions import EncryptionError
from django_asherah.fields import EncryptedJSONField
from tests.fields.helpers import opened, raw
from tests.testapp.models import Document

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "doc",
    [
        {},
        [],
        "",
        "text",
        0,
        -1,
        10**30,
        1.5,
        0.1,
        True,
        False,
        [None],
        {"": None, "a": {"b": [1, "2", 3.0, True, None]}},
        {"ü": "王🔑", "\0": "\0"},
        {"lone": "\ud800"},
        {"Key": {"Created": 1}, "Data": "x"},
        [[[[[]]]]],
        {"big": "x" * 200_000},
    ],
    ids=lambda doc: repr(doc)[:20],
)
def test_every_document_comes_back_with_its_types(doc: Any) -> None:
    document = Document.objects.create(doc=doc)
    read = Document.objects.get(pk=document.pk).doc
    assert read == doc
    assert type(read) is type(doc)
    assert json.loads(opened(document, "doc")) == doc


def test_neither_keys_nor_shape_are_seen_by_the_database() -> None:
    document = Document.objects.create(doc={"diagnosis": ["asthma"]})
    text = raw(document, "doc")
    assert "diagnosis" not in text
    assert set(json.loads(text)) == {"Key", "Data"}


def test_none_is_sql_null_and_json_null_is_a_document() -> None:
    document = Document.objects.create(doc=None)
    assert raw(document, "doc") is None
    document.doc = Value(None, JSONField())
    document.save()
    assert opened(document, "doc") == b"null"
    document.refresh_from_db()
    assert document.doc is None
    Document.objects.update(doc=Value(None, EncryptedJSONField()))
    assert opened(document, "doc") == b"null"
    assert Document.objects.filter(doc__isnull=False).count() == 1


def test_the_encoder_is_used() -> None:
    value = {
        "id": uuid.UUID(int=5),
        "at": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
        "sum": decimal.Decimal("1.10"),
    }
    document = Document.objects.create(encoded=value)
    document.refresh_from_db()
    assert document.encoded == {"id": str(uuid.UUID(int=5)), "at": "2026-01-02T03:04:05Z", "sum": "1.10"}


class Upper(json.JSONDecoder):
    """Reads text in capitals."""

    def decode(self, s: str, *args: Any) -> Any:
        return super().decode(s.upper())


def test_the_decoder_is_used() -> None:
    field = EncryptedJSONField(decoder=Upper)
    text = field.get_db_prep_save({"a": "b"}, connection)
    assert field.from_db_value(text, None, connection) == {"A": "B"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": {1, 2}}, object(), {("a", "b"): 1}])
def test_what_json_cant_hold_is_refused_without_the_value(value: Any) -> None:
    with pytest.raises(
        EncryptionError, match=r"testapp\.Document\.doc: the document can't be written as JSON"
    ) as caught:
        Document.objects.create(doc=value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_document_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(EncryptionError):
        Document.objects.create(doc=loop)


def test_the_form_field_reads_and_writes_json() -> None:
    form = modelform_factory(Document, fields=["name", "doc"])
    bound = form(data={"name": "n", "doc": '{"a": [1]}'})
    assert bound.is_valid(), bound.errors
    document = bound.save()
    document.refresh_from_db()
    assert document.doc == {"a": [1]}
    assert not form(data={"doc": "{"}).is_valid()


def test_the_column_is_text_without_a_json_check() -> None:
    field = Document._meta.get_field("doc")
    assert field.db_type(connection) == {"sqlite": "text", "postgresql": "text", "mysql": "longtext"}[connection.vendor]
    assert field.db_check(connection) is None
