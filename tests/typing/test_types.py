"""What a type checker sees: ``make types`` checks this file, and pytest runs it."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from typing import Any, assert_type

from django_asherah import engine
from tests.testapp.models import Document, Note, Typed
from tests.typing.own import Article


def check_sessions() -> None:
    with engine.get_session("p") as session:
        assert_type(session.encrypt(b"x"), str)
        assert_type(session.decrypt("x"), bytes)


def check_text_and_documents(note: Note, document: Document) -> None:
    assert_type(note.other_body, str)
    assert_type(note.body, str | None)
    assert_type(document.doc, Any | None)
    assert_type(document.encoded, Any)
    note.body = None
    note.other_body = None  # type: ignore[assignment]


def check_values(row: Typed) -> None:
    assert_type(row.char, str)
    assert_type(row.email, str)
    assert_type(row.url, str)
    assert_type(row.ip, str)
    assert_type(row.integer, int)
    assert_type(row.big, int)
    assert_type(row.float, float)
    assert_type(row.decimal, Decimal)
    assert_type(row.boolean, bool)
    assert_type(row.date, datetime.date)
    assert_type(row.moment, datetime.datetime)
    assert_type(row.time, datetime.time)
    assert_type(row.duration, datetime.timedelta)
    assert_type(row.uuid, uuid.UUID)
    assert_type(row.binary, bytes)


def check_values_that_may_be_none(row: Typed) -> None:
    assert_type(row.char_or_none, str | None)
    assert_type(row.email_or_none, str | None)
    assert_type(row.url_or_none, str | None)
    assert_type(row.ip_or_none, str | None)
    assert_type(row.integer_or_none, int | None)
    assert_type(row.big_or_none, int | None)
    assert_type(row.float_or_none, float | None)
    assert_type(row.decimal_or_none, Decimal | None)
    assert_type(row.boolean_or_none, bool | None)
    assert_type(row.date_or_none, datetime.date | None)
    assert_type(row.moment_or_none, datetime.datetime | None)
    assert_type(row.time_or_none, datetime.time | None)
    assert_type(row.duration_or_none, datetime.timedelta | None)
    assert_type(row.uuid_or_none, uuid.UUID | None)
    assert_type(row.binary_or_none, bytes | None)


def check_assignments(row: Typed) -> None:
    row.date = None  # type: ignore[assignment]
    row.date_or_none = None


def check_a_field_of_ones_own(article: Article) -> None:
    assert_type(article.slug, str)
    assert_type(article.old_slug, str | None)


def test_the_types_are_checked_by_mypy() -> None:
    assert callable(check_values)
