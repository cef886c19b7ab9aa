"""A key table with every kind of row in it, as the admin meets them."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoDbBlocker

from django_asherah import engine
from django_asherah.envelope.aead import Cipher
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, encode_key
from django_asherah.models import EncryptionKey
from tests.databases import VENDOR, in_thread

BASE = {"SERVICE": "suite", "PRODUCT": "tests"}
ARNS = {"us-west-2": "arn:west", "us-east-1": "arn:east"}
DAY = 24 * 60 * 60
SK_ID = "_SK_suite_tests"
LIST = "/admin/django_asherah/encryptionkey/"


@pytest.fixture(autouse=True)
def _no_keys_of_other_tests(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> None:
    """Begin without keys: on a server, those of a test that rolls back were committed on their own."""
    if VENDOR != "sqlite":
        with django_db_blocker.unblock():
            in_thread(EncryptionKey.objects.all().delete)
        engine.reset()


def regional(arns: dict[str, str] = ARNS, down: tuple[str, ...] = (), **changes: Any) -> dict[str, Any]:
    """Return settings whose KMS pretends to have regions."""
    return {
        **BASE,
        "KMS": "tests.regional.PretendedAws",
        "KMS_OPTIONS": {"arns": arns, "down": set(down)},
        **changes,
    }


class Maker:
    """Makes real keys of any age, and remembers what must never be shown."""

    def __init__(self) -> None:
        self.now = int(time.time()) // 60 * 60
        self.secrets: list[bytes] = []

    def system(self, days: float = 0, *, key_id: str = SK_ID, **members: Any) -> KeyMeta:
        """Make a system key so many days ago."""
        raw = os.urandom(32)
        wrapped = engine.get_factory().kms.encrypt_key(raw)
        self.secrets += [raw, wrapped]
        if wrapped.startswith(b"{"):
            document = json.loads(wrapped)
            texts = [document["encryptedKey"], *(kek["encryptedKek"] for kek in document["kmsKeks"])]
            self.secrets += [base64.b64decode(text) for text in texts if len(text) > 8]
        self._raw = raw
        return self._store(key_id, days, key=wrapped, **members)

    def intermediate(self, parent: KeyMeta, partition: str = "default", days: float = 0, **members: Any) -> KeyMeta:
        """Make an intermediate key under the system key made last."""
        sealed = Cipher(self._raw).seal(os.urandom(32))
        self.secrets.append(sealed)
        key_id = members.pop("key_id", f"_IK_{partition}_suite_tests")
        return self._store(key_id, days, key=sealed, parent_key_meta=parent, **members)

    def row(self, key_id: str, record: Any, days: float = 0) -> None:
        """Put any row in."""
        EncryptionKey.objects.create(key_id=key_id, created=self.moment(days), key_record=record)

    def moment(self, days: float) -> datetime:
        """Return a moment so many days ago."""
        return datetime.fromtimestamp(self.now - int(days * DAY), UTC)

    def _store(self, key_id: str, days: float, **members: Any) -> KeyMeta:
        record = EnvelopeKeyRecord(created=self.now - int(days * DAY), **members)
        if connection.in_atomic_block:  # The engine's own connection would leave the test's transaction.
            self.row(key_id, json.loads(encode_key(record)), days)
        else:
            assert engine.get_factory().metastore.store(key_id, record)
        return KeyMeta(key_id, record.created)

    def assert_none_shown(self, page: str) -> None:
        """Look for key material, sealed or not, as base64 or as hex digits."""
        for secret in self.secrets:
            assert base64.b64encode(secret).decode()[:-4] not in page
            assert secret.hex() not in page


@pytest.fixture
def make(db: None) -> Maker:
    return Maker()


@pytest.fixture(autouse=True)
def _fresh_engine() -> Iterator[None]:
    engine.reset()
    yield
    engine.reset()


@pytest.fixture
def user_with(db: None) -> Callable[..., Client]:
    """Return the client of a member of staff with these permissions."""

    def log_in(*codenames: str) -> Client:
        user = User.objects.create_user(f"user-{User.objects.count()}", is_staff=True)
        permissions = Permission.objects.filter(codename__in=[f"{name}_encryptionkey" for name in codenames])
        assert len(permissions) == len(codenames)
        user.user_permissions.set(permissions)
        client = Client()
        client.force_login(user)
        return client

    return log_in


@pytest.fixture
def staff(user_with: Callable[..., Client]) -> Client:
    """One who may do everything."""
    return user_with("view", "verify", "revoke")


def pk_of(meta: KeyMeta) -> int:
    return EncryptionKey.objects.get(key_id=meta.key_id, created=datetime.fromtimestamp(meta.created, UTC)).pk


def page_of(meta: KeyMeta) -> str:
    return reverse("admin:django_asherah_encryptionkey_change", args=[pk_of(meta)])
