"""What the tests of dumps share."""

from __future__ import annotations

import json
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from django.apps import apps
from django.core.management import call_command

from django_asherah import engine
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, encode_key
from django_asherah.envelope.session import SessionFactory
from django_asherah.metastores.database import DatabaseMetastore
from django_asherah.models import EncryptionKey
from tests.testapp.models import Clinic, Compact, Document, Note, Patient, Tenancy, Typed
from tests.testapp.tenants import Account, Member, Stay

Keys = dict[KeyMeta, EnvelopeKeyRecord]
Values = dict[tuple[str, Any], list[Any]]

SK_ID = "_SK_suite_tests"
PARTITIONS = ["default", "left", "member-a", "clinic-1"]
NOW = int(time.time())
DAY = 24 * 3600


def make_keys(*, days_old: int) -> None:
    """Make a system key and intermediate keys of this age, in the key table that the settings name."""
    at = NOW - days_old * DAY
    running = engine.get_factory()
    maker = SessionFactory(running.service, running.product, running.metastore, running.kms, clock=lambda: at)
    maker.current_keys(PARTITIONS)


def keys_of(alias: str = "default") -> Keys:
    """Return the keys that a database holds."""
    found = [(row.key_id, row.record()) for row in DatabaseMetastore(alias).scan()]
    return {KeyMeta(key_id, record.created): record for key_id, record in found}


def fill() -> None:
    """Save rows with fields of every kind, in every format."""
    typed = _typed_values()
    Typed.objects.create()
    Typed.objects.create(**typed, **{f"{name}_or_none": value for name, value in typed.items()})
    Note.objects.create(title="n", body="a <b> & ]]> 'c' \N{GRINNING FACE}", other_body="")
    Compact.objects.create(body="b", apart="a", json_bytes="j")
    Tenancy.objects.create(left="l", right="r", plain="p")
    Member.objects.create(tenant="a", name="1", secret="s", photo=b"\x00p")
    Stay.objects.create(house=1, number=2, secret="s")
    Document.objects.create(doc={"a": [1, None, "ü"]}, encoded=["x"])
    Patient.objects.create(clinic=Clinic.objects.create(name="c"), ssn="1", history=[{}], scan=b"\xff")
    Account.objects.create(secret="s", score=-1, notes={"a": 1}, born="2000-02-29")


def values_of(alias: str = "default") -> Values:
    """Return all that the rows hold, as a process that has opened no key yet reads it."""
    engine.reset()
    return {
        (model._meta.label, row.pk): [getattr(row, field.attname) for field in model._meta.concrete_fields]
        for model in apps.get_app_config("testapp").get_models()
        for row in model._base_manager.using(alias)
    }


def wipe() -> None:
    """Empty the tables of keys and data, as if this were another database."""
    for model in reversed(list(apps.get_app_config("testapp").get_models())):
        model._base_manager.all().delete()
    EncryptionKey.objects.all().delete()
    engine.reset()


def load(path: Path, **options: Any) -> None:
    """Run ``loaddata``."""
    call_command("loaddata", str(path), verbosity=0, **options)


def key_row(key_id: str, record: EnvelopeKeyRecord, **fields: Any) -> dict[str, Any]:
    """Return a row of the key table as JSON dumps have it."""
    moment = datetime.fromtimestamp(record.created, UTC).isoformat()
    row = {"key_id": key_id, "created": moment, "key_record": json.loads(encode_key(record))}
    return {"model": "django_asherah.encryptionkey", "pk": 1, "fields": row | fields}


def note_row(pk: Any = 77) -> dict[str, Any]:
    """Return a row of data as JSON dumps have it."""
    return {"model": "testapp.note", "pk": pk, "fields": {"title": "loaded", "body": "loaded"}}


def _typed_values() -> dict[str, Any]:
    return {
        "char": "0042 zoë",
        "email": "zoë@example.com",
        "url": "https://example.com/?q=1&r=2",
        "ip": "2001:db8::1",
        "integer": -(2**31),
        "big": 2**63 - 1,
        "float": 0.1,
        "decimal": Decimal("-12345678.90"),
        "boolean": True,
        "date": date(1, 2, 3),
        "moment": datetime(2026, 11, 24, 12, 0, 0, 123000, tzinfo=UTC),
        "time": datetime(2026, 1, 1, 23, 59, 59, 999000, tzinfo=UTC).time(),
        "duration": timedelta(days=-1, microseconds=1),
        "uuid": UUID(int=2**128 - 1),
        "binary": bytes(range(256)),
    }
