"""No hidden cost: with the keys in hand, a read or a write asks neither the KMS nor the key table for anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from django_asherah import engine
from django_asherah.kms.static import StaticKMS
from tests.databases import as_asherah
from tests.testapp.models import Compact, Note, Tenancy

pytestmark = pytest.mark.django_db(transaction=True)

CALLS: Counter[str] = Counter()


class CountingKMS(StaticKMS):
    """Counts what it is asked."""

    def encrypt_key(self, key: bytes | bytearray) -> bytes:
        CALLS["wrap"] += 1
        return super().encrypt_key(key)

    def decrypt_key(self, wrapped: bytes) -> bytearray:
        CALLS["unwrap"] += 1
        return super().decrypt_key(wrapped)


def make_kms(settings: Any) -> CountingKMS:
    """Stand in for the KMS, by its dotted path."""
    return CountingKMS(b"k" * 32)


@pytest.fixture(autouse=True)
def warm(settings: Any) -> None:
    """Open every key that the tests use."""
    settings.ASHERAH = as_asherah(KMS="tests.test_warm.make_kms", KMS_OPTIONS={})
    Note.objects.create(body="warm" * 5_000)  # Long enough that MySQL's limit is asked for, once a session.
    Tenancy.objects.create(left="warm", right="warm", doc={})
    Compact.objects.create(body="warm", apart="warm", plain="warm")
    CALLS.clear()


def read_all(model: Any) -> list[Any]:
    return list(model.objects.all())


OPERATIONS: dict[str, tuple[Callable[[], Any], int]] = {
    "create": (lambda: Note.objects.create(body="x"), 1),
    "create with several partitions": (lambda: Tenancy.objects.create(left="l", left_too="t", right="r", doc={}), 1),
    "create compact": (lambda: Compact.objects.create(body="x", doc={}, apart="a", json_bytes="j", plain="p"), 1),
    "bulk_create": (lambda: Note.objects.bulk_create([Note(body=str(n)) for n in range(50)], batch_size=1000), 1),
    "update": (lambda: Note.objects.update(body="x"), 1),
    "save": (lambda: Note(body="x").save(), 1),
    "read": (lambda: read_all(Note), 1),
    "read several partitions": (lambda: read_all(Tenancy), 1),
    "read compact": (lambda: read_all(Compact), 1),
    "values": (lambda: list(Note.objects.values("body", "other_body")), 1),
    "a session": (lambda: engine.get_session("left").decrypt(engine.get_session("left").encrypt(b"x")), 0),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_only_the_query_itself_is_sent(name: str) -> None:
    work, queries = OPERATIONS[name]
    with CaptureQueriesContext(connection) as sent:
        work()
    said = [query["sql"] for query in sent if not query["sql"].startswith(("BEGIN", "SAVEPOINT", "RELEASE", "COMMIT"))]
    assert len(said) == queries
    assert not [sql for sql in said if "encryption_key" in sql]
    assert CALLS == {}


def test_nor_inside_a_transaction() -> None:
    with CaptureQueriesContext(connection) as sent, transaction.atomic():
        Note.objects.create(body="x")
        read_all(Note)
    assert not [query["sql"] for query in sent if "encryption_key" in query["sql"]]
    assert CALLS == {}


def test_cold_a_read_costs_one_unwrap_and_one_query_for_each_key_above_the_values() -> None:
    Note.objects.bulk_create([Note(body=str(n)) for n in range(30)])
    engine.get_factory().clear()
    with CaptureQueriesContext(connection) as sent:
        assert len(read_all(Note)) == 31
    assert len([query for query in sent if "encryption_key" in query["sql"]]) == 2
    assert CALLS == {"unwrap": 1}
