"""Looks at what an instance holds, and at what reading or writing it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

from django.db import connection, models
from django.test.utils import CaptureQueriesContext

from django_asherah import engine, lifecycle
from django_asherah.envelope.session import Session
from tests.testapp.models import Note

KEYS = 6


class CountedSession(Session):
    """Counts its calls by name."""

    calls: ClassVar[Counter[str]] = Counter()

    def encrypt(self, *args: Any) -> str:
        self.calls["seal"] += 1
        return super().encrypt(*args)

    def encrypt_compact(self, *args: Any) -> bytes:
        self.calls["seal"] += 1
        return super().encrypt_compact(*args)

    def decrypt(self, *args: Any) -> bytes:
        self.calls["open"] += 1
        return super().decrypt(*args)


def is_sealed(instance: models.Model, name: str) -> bool:
    """Tell whether an instance holds the record of an attribute, and not its value."""
    return type(vars(instance)[name]).__name__ == "SealedValue"


def sealed_names(instance: models.Model) -> set[str]:
    """Return the attributes that an instance holds the records of."""
    return {name for name in vars(instance) if is_sealed(instance, name)}


def queries(work: Callable[[], Any]) -> list[str]:
    """Return the SQL of every query of ``work``."""
    with CaptureQueriesContext(connection) as sent:
        work()
    return [query["sql"] for query in sent]


def key_queries(work: Callable[[], Any]) -> int:
    """Return how often ``work`` asks the database for keys."""
    return len([sql for sql in queries(work) if "encryption_key" in sql])


def rotate_intermediate() -> None:
    """Let new values have an intermediate key of their own, under the same system key."""
    engine.get_factory().intermediate_keys.rotate("_IK_default_suite_tests")


def make_rotated_notes(rotate: Callable[[], Any] = lifecycle.rotate) -> None:
    """Store rows under as many intermediate and system keys as there are rows, and leave none of the keys cached."""
    for place in range(KEYS):
        Note.objects.create(title=f"title {place}", body=f"text {place}", other_body=f"other {place}")
        rotate()
    engine.get_factory().clear()


def make_due() -> None:
    """Let every cached key be due for the check of its own record."""
    factory = engine.get_factory()
    for ring in (factory.system_keys, factory.intermediate_keys):
        for key in ring.cache.opened.values():
            key.trust_until(0)
