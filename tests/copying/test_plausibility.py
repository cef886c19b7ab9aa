"""What can be a value of a field, and what can't."""

from __future__ import annotations

import base64
import re
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest

from django_asherah import fields
from django_asherah.copying.plausibility import Plausibility

RAW = b"\x80" + bytes(range(100))
GIVEN_BACK = "it is what the column holds: not decrypted, or never encrypted"
TEXT = fields.EncryptedTextField()
VALUES: dict[type[Any], Any] = {
    fields.EncryptedTextField: "900-12-3456",
    fields.EncryptedCharField: "Zoë 王🔑\t\r\n",
    fields.EncryptedEmailField: "zoe@example.com",
    fields.EncryptedURLField: "https://example.com",
    fields.EncryptedGenericIPAddressField: "::1",
    fields.EncryptedIntegerField: 7,
    fields.EncryptedBigIntegerField: 2**60,
    fields.EncryptedFloatField: 0.5,
    fields.EncryptedDecimalField: Decimal("1.50"),
    fields.EncryptedBooleanField: False,
    fields.EncryptedDateField: date(2026, 2, 28),
    fields.EncryptedDateTimeField: datetime(2026, 2, 28, tzinfo=UTC),
    fields.EncryptedTimeField: time(12, 30),
    fields.EncryptedDurationField: timedelta(1),
    fields.EncryptedUUIDField: uuid.UUID(int=7),
    fields.EncryptedBinaryField: b"\x00\xff",
    fields.EncryptedJSONField: {"a": ["Zoë", 1, None, {"b": True}]},
}


def test_every_field_type_is_among_these() -> None:
    named = {getattr(fields, name) for name in fields.__all__ if name.endswith("Field")}
    assert named == VALUES.keys()


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_a_value_is_plausible_in_a_field_of_its_kind_alone(kind: type[Any]) -> None:
    holds = Plausibility(kind())
    for other, value in VALUES.items():
        same = type(value) is type(VALUES[kind])
        also = kind is fields.EncryptedJSONField and isinstance(value, str | int | float)
        assert (holds.fault(value, RAW) == "") is (same or also), other
    for none in (None, object(), type("Text", (str,), {})("marked")):
        assert " holds " in holds.fault(none, RAW)


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        ("short", "short"),
        ("short", b"short"),
        ("short", memoryview(b"short")),
        ("a piece of sixteen characters", "hc1:a piece of sixteen characters$hash"),
        ('"in quotes, for JSON"', "in quotes, for JSON"),
    ],
)
def test_what_the_column_holds_or_a_long_piece_of_it_is_no_value(value: str, raw: Any) -> None:
    assert Plausibility(TEXT).fault(value, raw) == GIVEN_BACK


@pytest.mark.parametrize(("field", "value", "raw"), [
    (fields.EncryptedIntegerField(), 42, "42"),
    (fields.EncryptedDateField(), date(2026, 2, 28), "2026-02-28"),
    (fields.EncryptedBinaryField(), RAW, memoryview(RAW)),
    (fields.EncryptedJSONField(), {"iv": "a", "ct": "b"}, '{"ct": "b", "iv": "a"}'),
    (fields.EncryptedJSONField(), ["a"], b'["a"]'),
])  # fmt: skip
def test_so_it_is_in_fields_of_other_kinds(field: Any, value: Any, raw: Any) -> None:
    assert Plausibility(field).fault(value, raw) == GIVEN_BACK


def test_a_short_piece_of_it_is_a_value() -> None:
    assert Plausibility(TEXT).fault("a", "gAAAAA") == ""
    assert Plausibility(fields.EncryptedJSONField()).fault(["a"], "no JSON") == ""


@pytest.mark.parametrize(("character", "fault"), [
    ("\x00", "it holds a control character"),
    ("\x1b", "it holds a control character"),
    ("\x9f", "it holds a control character"),
    ("\ufffd", "it holds a replacement character"),
    ("\ue000", "it holds a private-use character"),
    ("\U0010ffff", "it holds an unassigned code point"),
    ("\ud800", "it holds a surrogate"),
])  # fmt: skip
def test_text_that_random_bytes_make_is_no_value(character: str, fault: str) -> None:
    document = Plausibility(fields.EncryptedJSONField())
    assert Plausibility(TEXT).fault(f"Zoë{character}", RAW) == fault
    assert document.fault({"a": [{f"Zoë{character}": 1}]}, RAW) == fault
    assert document.fault([1, {"a": f"Zoë{character}"}], RAW) == fault


def test_what_looks_like_ciphertext_is_no_value_unless_the_application_says_what_values_look_like() -> None:
    token = base64.b64encode(bytes(range(60))).decode()
    assert Plausibility(TEXT).fault(token, RAW) == "it looks like ciphertext or a token: base64"
    assert Plausibility(fields.EncryptedJSONField()).fault(token, RAW) != ""
    assert Plausibility(fields.EncryptedJSONField()).fault({"token": token}, RAW) == ""
    tokens = Plausibility(TEXT, re.compile(r"[A-Za-z0-9+/]{80}").fullmatch)
    assert tokens.fault(token, RAW) == ""
    assert tokens.fault("900-12-3456", RAW) == "plausible() says no"
    assert tokens.fault(token, token) == GIVEN_BACK


@pytest.mark.parametrize(("field", "empty"), [(TEXT, ""), (fields.EncryptedBinaryField(), b"")])
def test_what_is_empty_is_a_value_however_it_is_stored(field: Any, empty: Any) -> None:
    assert Plausibility(field, lambda value: False).fault(empty, empty) == ""
    assert Plausibility(field).fault(empty, RAW) == ""
