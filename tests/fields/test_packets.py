"""A record that MySQL's ``max_allowed_packet`` does not let through is refused before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections, models
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoDbBlocker, Settings

from django_asherah.exceptions import DecryptionError, EncryptionError
from django_asherah.lifecycle.columns import Column
from django_asherah.lifecycle.conversion import decrypt_column, encrypt_column
from django_asherah.lifecycle.ledger import Ledger
from django_asherah.models import EncryptionKey
from tests.databases import VENDOR, another_alias, as_asherah, execute
from tests.mariadb_server import mariadb
from tests.testapp.models import Clinic, Compact, Note, Patient

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(VENDOR != "mysql", reason="a limit of MySQL and MariaDB"),
]

LIMIT = 131_072
FITS, TOO_LONG = 90_000, 100_000  # JSON makes 4 characters of 3 bytes.
REFUSED = r"takes \d+ bytes, and the server of database 'small' takes 131072 \(max_allowed_packet\)\. Nothing was sent"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with mariadb(tmp_path_factory.mktemp("small"), "UTC", f"--max-allowed-packet={LIMIT}") as settings:
        yield settings


@pytest.fixture(scope="module")
def tables(server: dict[str, Any], django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    with django_db_blocker.unblock(), another_alias("small", **server) as alias:
        with connections[alias].schema_editor() as editor:
            for model in (EncryptionKey, Note, Compact, Clinic, Patient):
                editor.create_model(model)
        yield alias


@pytest.fixture
def small(tables: str, settings: Settings, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    settings.ASHERAH = as_asherah(DATABASE=tables)
    with django_db_blocker.unblock():
        yield tables
        for model in (Note, Compact, Patient, Clinic):
            execute(tables, f"DELETE FROM {model._meta.db_table}")


def test_a_value_that_fits_is_stored(small: str) -> None:
    note = Note.objects.using(small).create(body="x" * FITS)
    compact = Compact.objects.using(small).create(body="x" * 120_000)

    assert Note.objects.using(small).get(pk=note.pk).body == "x" * FITS
    assert Compact.objects.using(small).get(pk=compact.pk).body == "x" * 120_000


def test_a_save_is_refused(small: str) -> None:
    with pytest.raises(EncryptionError, match=rf"^testapp\.Note\.body: .*{REFUSED}"):
        Note.objects.using(small).create(body="x" * TOO_LONG)
    with pytest.raises(EncryptionError, match=rf"^testapp\.Compact\.body: .*{REFUSED}"):
        Compact.objects.using(small).create(body="x" * LIMIT)

    note = Note.objects.using(small).create(body="short")
    note.body = "x" * TOO_LONG
    with pytest.raises(EncryptionError, match=REFUSED):
        note.save()

    assert Note.objects.using(small).get().body == "short"


def test_so_is_an_update(small: str) -> None:
    note = Note.objects.using(small).create(body="short")

    with pytest.raises(EncryptionError, match=REFUSED):
        Note.objects.using(small).update(body="x" * TOO_LONG)
    note.body = "x" * TOO_LONG
    with pytest.raises(EncryptionError, match=REFUSED):
        Note.objects.using(small).bulk_update([note], ["body"])

    assert Note.objects.using(small).get().body == "short"


@pytest.mark.parametrize("length", [200, 30_000])
def test_rows_that_are_too_much_together_are_refused_and_a_batch_size_helps(small: str, length: int) -> None:
    notes = [Note(body="x" * length) for _ in range(300 if length == 200 else 6)]

    with pytest.raises(EncryptionError, match="smaller batch_size"):
        Note.objects.using(small).bulk_create(notes)
    assert not Note.objects.using(small).exists()

    Note.objects.using(small).bulk_create(notes, batch_size=len(notes) // 3)
    assert Note.objects.using(small).count() == len(notes)


def test_a_row_of_a_tenant_is_refused(small: str) -> None:
    clinic = Clinic.objects.using(small).create(name="north")

    with pytest.raises(EncryptionError, match=rf"^testapp\.Patient\.\w+: .*{REFUSED}"):
        Patient.objects.using(small).create(clinic=clinic, **{_text_field(Patient): "x" * TOO_LONG})


def _text_field(model: type[models.Model]) -> str:
    return next(field.name for field in model._meta.fields if getattr(field, "template", None) is not None)


def test_the_limit_is_asked_for_once_and_for_small_values_never(small: str) -> None:
    connections[small].close()
    Note.objects.using(small).create(body="the first statement of the session, and its key")
    with CaptureQueriesContext(connections[small]) as queries:
        Note.objects.using(small).create(body="x" * 1000)
    assert len(queries) == 1

    with CaptureQueriesContext(connections[small]) as queries:
        Note.objects.using(small).create(body="x" * FITS)
        Note.objects.using(small).create(body="x" * FITS)
    assert len(queries) == 3


@pytest.mark.parametrize(("convert", "error"), [(encrypt_column, EncryptionError), (decrypt_column, DecryptionError)])
def test_a_move_leaves_such_a_value_and_names_it(
    small: str, convert: Callable[..., int], error: type[Exception]
) -> None:
    column = Column(Note, Note._meta.get_field("body"), small)
    stored = {"short": "y" * 100, "long": "x" * 60_000}  # Both a value and its record are in the statement.
    rows = {name: Note.objects.using(small).create(body=text) for name, text in stored.items()}
    if convert is encrypt_column:
        for name, row in rows.items():
            execute(small, "UPDATE testapp_note SET body = %s WHERE id = %s", [stored[name], row.pk])
    before = execute(small, "SELECT body FROM testapp_note WHERE id = %s", [rows["long"].pk])

    try:
        with pytest.raises(error, match=rf"1 values .* pk={rows['long'].pk}: what it holds takes .*max_allowed_packet"):
            convert(column)
    finally:
        Ledger(column, "encrypt").drop()
        Ledger(column, "decrypt").drop()

    assert execute(small, "SELECT body FROM testapp_note WHERE id = %s", [rows["long"].pk]) == before
    ((short,),) = execute(small, "SELECT body FROM testapp_note WHERE id = %s", [rows["short"].pk])
    assert (short == stored["short"]) is (convert is decrypt_column)
