"""Migrations, checks, and what the field tells Django of itself."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core import checks
from django.core.exceptions import FieldError
from django.core.management import call_command
from django.db import connection, migrations, models
from django.db.migrations.writer import MigrationWriter
from django.db.models import F, Value
from django.db.models.functions import Now, Upper
from django.test.utils import isolate_apps

from django_asherah.fields import EncryptedFieldMixin, EncryptedJSONField, EncryptedTextField
from tests.testapp.models import Note


def test_deconstruct_recreates_the_field() -> None:
    field = EncryptedJSONField(partition="p", null=True, encoder=None, default=dict)
    field.name = "doc"
    name, _, args, kwargs = field.deconstruct()
    assert (name, args) == ("doc", [])
    assert kwargs == {"null": True, "default": dict, "partition": "p"}
    again = EncryptedJSONField(*args, **kwargs)
    again.name = "doc"
    assert again.deconstruct() == field.deconstruct()
    assert field.clone().partition == "p"


def test_the_partition_is_written_only_if_given() -> None:
    assert "partition" not in EncryptedTextField().deconstruct()[3]


def test_a_migration_holds_no_secret() -> None:
    operation = migrations.AddField("note", "x", EncryptedTextField(partition="p", default=""))
    migration = type("Migration", (migrations.Migration,), {"operations": [operation]})("0001_x", "app")
    text = MigrationWriter(migration).as_string()
    assert "EncryptedTextField(default='', partition='p')" in text
    assert "5a5a5a" not in text


@pytest.mark.django_db
def test_a_second_makemigrations_finds_nothing() -> None:
    out = io.StringIO()
    call_command("makemigrations", "django_asherah", check=True, dry_run=True, stdout=out)
    assert "No changes" in out.getvalue()


@isolate_apps("tests.testapp")
@pytest.mark.parametrize(
    ("options", "id"),
    [
        ({"unique": True}, "asherah.E101"),
        ({"primary_key": True}, "asherah.E102"),
        ({"db_index": True}, "asherah.E103"),
        ({"db_default": "x"}, "asherah.E104"),
    ],
)
def test_options_that_need_the_database_to_understand_the_value_are_check_errors(options: Any, id: str) -> None:
    class Wrong(models.Model):
        secret = EncryptedTextField(**options)

        class Meta:
            app_label = "testapp"

    found = [message for message in Wrong.check() if (message.id or "").startswith("asherah.E1")]
    assert [message.id for message in found] == [id]
    assert isinstance(found[0], checks.Error)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("default", ["900-12", Value("900-12"), Upper(Value("900-12")), Now()], ids=type)
@isolate_apps("tests.testapp")
def test_no_default_of_the_database_is_stored_even_if_its_check_is_silenced(default: Any) -> None:
    class Defaulted(models.Model):
        class Meta:
            app_label = "testapp"

    field = EncryptedTextField(db_default=default)
    with connection.schema_editor() as editor:
        editor.create_model(Defaulted)
    try:
        field.contribute_to_class(Defaulted, "secret")
        with (
            # SQLite makes the table anew, of a model that Django calls NewDefaulted.
            pytest.raises(FieldError, match=r"^testapp\.(New)?Defaulted\.secret is encrypted: .* Use default instead$"),
            connection.schema_editor() as editor,
        ):
            editor.add_field(Defaulted, field)
        assert [message.id for message in field.check(databases=["default"])] == ["asherah.E104"]
        with pytest.raises(FieldError, match=r"^testapp\.Defaulted\.secret is encrypted"):
            Defaulted()
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(Defaulted)


def test_a_plain_encrypted_field_has_nothing_to_complain_of() -> None:
    assert Note._meta.get_field("body").check() == []


def test_any_field_can_be_made_an_encrypted_one() -> None:
    class EncryptedIntegerField(EncryptedFieldMixin, models.IntegerField):  # type: ignore[type-arg]
        pass

    field = EncryptedIntegerField()
    assert field.db_type(connection) == EncryptedTextField().db_type(connection)


def test_f_is_left_alone_before_it_is_resolved() -> None:
    note = Note(body=F("other_body"))
    assert isinstance(Note._meta.get_field("body").pre_save(note, False), F)
