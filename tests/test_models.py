"""The key table as a Django model."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from django.core.checks import run_checks
from django.db import IntegrityError, connections, models
from django.db.migrations.writer import MigrationWriter

from django_asherah.envelope.records import KeyMeta, encode_key
from django_asherah.metastores.database import DatabaseMetastore
from django_asherah.models import EncryptionKey, KeyCreatedField, KeyIdField
from tests.databases import VENDOR, record

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
CREATED = int(NOON.timestamp())


def make(alias: str, key_id: str) -> EncryptionKey:
    text = encode_key(record(CREATED))
    return EncryptionKey.objects.using(alias).create(key_id=key_id, created=NOON, key_record=json.loads(text))


def test_the_metastore_reads_what_the_model_wrote(alias: str) -> None:
    make(alias, "_SK_s_p")

    assert DatabaseMetastore(alias).load(KeyMeta("_SK_s_p", CREATED)) == record(CREATED)


def test_the_model_reads_what_the_metastore_wrote(alias: str) -> None:
    DatabaseMetastore(alias).store("_SK_s_p", record(CREATED, 7))

    key = EncryptionKey.objects.using(alias).get(key_id="_SK_s_p", created=NOON)

    assert key.created == NOON
    assert key.key_record == json.loads(encode_key(record(CREATED, 7)))
    assert str(key) == "_SK_s_p created 2026-11-24 12:00:00"


def test_one_id_and_time_stands_once(alias: str) -> None:
    make(alias, "_IK_a_s_p")
    make(alias, "_IK_A_s_p")

    with pytest.raises(IntegrityError):
        make(alias, "_IK_a_s_p")


@pytest.mark.parametrize(("looked_for", "found"), [("_IK_Alice_s_p", 1), ("_IK_alice_s_p", 0), ("_IK_Àlice_s_p", 0)])
def test_ids_are_looked_up_byte_for_byte(alias: str, looked_for: str, found: int) -> None:
    make(alias, "_IK_Alice_s_p")

    assert EncryptionKey.objects.using(alias).filter(key_id=looked_for).count() == found


def test_the_id_column_has_a_binary_collation_where_the_default_is_none() -> None:
    parameters = EncryptionKey._meta.get_field("key_id").db_parameters(connections["default"])

    assert parameters.get("collation") == ("utf8mb4_bin" if VENDOR == "mysql" else None)


def test_a_migration_names_the_field_and_no_database() -> None:
    field = KeyIdField("key id", max_length=255, db_column="id")
    text, imports = MigrationWriter.serialize(field)

    assert text == "django_asherah.models.KeyIdField(db_column='id', max_length=255, verbose_name='key id')"
    assert imports == {"import django_asherah.models"}


def test_what_the_sdks_share_has_the_names_that_they_know() -> None:
    columns = {field.column: type(field) for field in EncryptionKey._meta.fields}

    assert EncryptionKey._meta.db_table == "encryption_key"
    assert columns == {
        "row_id": models.BigAutoField,
        "id": KeyIdField,
        "created": KeyCreatedField,
        "key_record": models.JSONField,
    }


# Django 6.1 asks every database what it can do.
@pytest.mark.django_db(databases=["default", "other"])
def test_the_app_passes_its_own_and_djangos_checks() -> None:
    assert [message for message in run_checks() if "asherah" in str(message.obj)] == []
