"""DecryptField, and EncryptField reversed: columns of records become plain ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import models

from django_asherah import engine
from django_asherah.exceptions import DecryptionError
from django_asherah.fields import EncryptedJSONField, EncryptedTextField
from django_asherah.lifecycle.conversion import decrypt_column
from django_asherah.operations import EncryptField
from tests.conversion.conftest import Table
from tests.conversion.test_encrypt import DOCUMENTS, RECORD, TEXTS
from tests.databases import VENDOR

pytestmark = pytest.mark.django_db(transaction=True)

Make = Callable[..., Table]


def test_every_record_becomes_its_text(make_table: Make) -> None:
    table = make_table(EncryptedTextField(null=True))
    table.save(*TEXTS, None)
    table.decrypt(models.TextField(null=True))
    assert table.raw() == [*TEXTS, None]
    assert table.values() == [*TEXTS, None]


def test_a_char_field_gets_its_length_and_index_back(make_table: Make) -> None:
    table = make_table(EncryptedTextField())
    table.save("ü" * 5, "")
    table.decrypt(models.CharField(max_length=5, unique=True))
    assert table.raw() == ["ü" * 5, ""]
    assert table.model.objects.using(table.alias).filter(secret="ü" * 5).count() == 1


def test_documents_and_jsons_null(make_table: Make) -> None:
    table = make_table(EncryptedJSONField(null=True))
    table.save(*DOCUMENTS, models.Value(None, models.JSONField()), None)
    table.decrypt(models.JSONField(null=True))
    assert table.values() == [*DOCUMENTS, None, None]
    stored = table.model.objects.using(table.alias)
    assert stored.filter(secret__isnull=True).count() == 1
    assert stored.filter(secret__a__1=None, secret__has_key="a").count() == 1


def test_a_value_that_looks_like_a_record_of_ours_is_decrypted_once(make_table: Make) -> None:
    record = engine.get_session().encrypt(b"inner")
    table = make_table(EncryptedTextField())
    table.save(record)
    table.decrypt(models.TextField())
    assert table.raw() == [record]


@pytest.mark.parametrize("kind", ["text", "json"])
def test_there_and_back_again(make_table: Make, kind: str) -> None:
    plain, secret, values = {
        "text": (models.TextField, EncryptedTextField, TEXTS),
        "json": (models.JSONField, EncryptedJSONField, DOCUMENTS),
    }[kind]
    table = make_table(plain())
    table.save(*values)
    operation, before = EncryptField("thing", "secret", secret()), table.state
    for _ in range(2):
        table.migrate(operation)
        assert table.values() == values
        assert "_IK_default_suite_tests" in table.raw()[0]
        table.reverse(operation, before)
        assert table.values() == values
    assert len(table.ledgers()) == 1


def test_what_does_not_open_is_left_and_named(make_table: Make) -> None:
    table = make_table(EncryptedTextField())
    rows = table.save("a", "b", "c")
    table.set_raw(rows[1], RECORD)
    with pytest.raises(DecryptionError, match="1 values could not be decrypted and are left as they were") as caught:
        table.decrypt(models.TextField())
    assert f"pk={rows[1].pk}: " in str(caught.value)
    assert table.raw() == ["a", RECORD, "c"]
    table.set_raw(rows[1], engine.get_session().encrypt(b"mended"))
    table.decrypt(models.TextField())
    assert table.raw() == ["a", "mended", "c"]


def test_plaintext_is_no_record_unless_the_field_allows_it(make_table: Make) -> None:
    table = make_table(EncryptedTextField())
    rows = table.save("a", "b")
    table.set_raw(rows[1], "never encrypted")
    with pytest.raises(DecryptionError, match=f"pk={rows[1].pk}: "):
        table.decrypt(models.TextField())


def test_with_allow_plaintext_it_is_left_as_it_is(make_table: Make) -> None:
    table = make_table(EncryptedTextField(allow_plaintext=True))
    rows = table.save("a", "b")
    table.set_raw(rows[1], "never encrypted")
    table.decrypt(models.TextField())
    assert table.raw() == ["a", "never encrypted"]


def test_what_is_too_long_for_the_plain_column_is_left_encrypted(make_table: Make) -> None:
    table = make_table(EncryptedTextField())
    rows = table.save("short", "far too long")
    with pytest.raises(DecryptionError, match=f"pk={rows[1].pk}: it is longer than the 5 characters"):
        table.decrypt(models.CharField(max_length=5))
    assert table.raw()[0] == "short"
    assert "_IK_default_suite_tests" in table.raw()[1]


@pytest.mark.skipif(VENDOR != "postgresql", reason="only PostgreSQL can't store NUL in text")
@pytest.mark.parametrize(
    ("secret", "plain", "value"),
    [
        (EncryptedTextField(), models.TextField(), "a\0b"),
        (EncryptedJSONField(), models.JSONField(), {"a": "\0"}),
    ],
    ids=["text", "json"],
)
def test_nul_is_left_encrypted_on_postgresql(make_table: Make, secret: Any, plain: Any, value: Any) -> None:
    table = make_table(secret)
    rows = table.save(value)
    with pytest.raises(DecryptionError, match=f"pk={rows[0].pk}: it holds NUL, which PostgreSQL can't store"):
        table.decrypt(plain)
    assert table.values() == [value]


@pytest.mark.skipif(VENDOR != "postgresql", reason="only PostgreSQL refuses a lone surrogate in JSON")
def test_the_databases_own_refusal_shows_no_value(make_table: Make) -> None:
    table = make_table(EncryptedJSONField())
    table.save({"a": 1})
    bad = table.save({"a": "secret \ud800"})[0]
    with pytest.raises(DecryptionError, match=f"pk={bad.pk}: it is no JSON that this database can store") as caught:
        table.decrypt(models.JSONField())
    assert table.raw()[0] == '{"a":1}'
    assert caught.value.__context__ is None
    assert "secret " not in str(caught.value)


def test_records_written_meanwhile_are_decrypted_in_the_next_pass(make_table: Make) -> None:
    table = make_table(EncryptedTextField())
    rows = table.save("a", "b")
    writes = ["a", "c"]  # The first is what was decrypted before: the digest is there already.

    def write(count: int) -> None:
        if writes:
            table.set_raw(rows[0], engine.get_session().encrypt(writes.pop(0).encode()))

    assert decrypt_column(table.column, write) == 4
    assert table.raw() == ["c", "b"]


@pytest.mark.parametrize("allow_plaintext", [False, True])
def test_records_that_are_written_without_end_are_never_left_as_values(make_table: Make, allow_plaintext: bool) -> None:
    table = make_table(EncryptedTextField(allow_plaintext=allow_plaintext))
    rows = table.save("a", "b")

    def write(count: int) -> None:
        table.set_raw(rows[0], engine.get_session().encrypt(b"again"))

    with pytest.raises(DecryptionError, match=r"others keep writing records\. Stop the code that does") as caught:
        decrypt_column(table.column, write)
    assert "allow_plaintext" not in str(caught.value)
    assert decrypt_column(table.column) == 1
    assert table.raw() == ["again", "b"]


def test_digests_of_values_do_not_outlive_a_new_encryption(make_table: Make) -> None:
    table = make_table(EncryptedTextField())
    table.save("a")
    table.decrypt(models.TextField())
    left = table.ledgers()
    table.encrypt(EncryptedTextField())
    assert set(left).isdisjoint(table.ledgers())


def test_a_record_of_another_kind_of_field_is_left_as_it_is(make_table: Make) -> None:
    table = make_table(EncryptedJSONField())
    row, _ = table.save({"a": 1}, {"b": 2})
    foreign = engine.get_session().encrypt(b"no document")
    table.set_raw(row, foreign)
    with pytest.raises(DecryptionError, match=f"pk={row.pk}: the record opens, but holds no JSON"):
        decrypt_column(table.column)
    assert table.raw() == [foreign, '{"b":2}']


@pytest.mark.parametrize(("bad", "rest"), [(20, ""), (21, "; and 1 more"), (23, "; and 3 more")])
def test_the_first_twenty_values_that_are_left_are_named(make_table: Make, bad: int, rest: str) -> None:
    table = make_table(EncryptedTextField())
    rows = table.save(*["x"] * bad)
    for row in rows:
        table.set_raw(row, "no record")
    with pytest.raises(DecryptionError) as caught:
        decrypt_column(table.column)
    text = str(caught.value)
    assert text.startswith(f"moved.Thing.secret: {bad} values could not be decrypted and are left as they were")
    assert text.count("pk=") == 20
    assert text.endswith(rest) if rest else "more" not in text
