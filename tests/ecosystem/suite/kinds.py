"""A model with a field of every kind, and the same model without encryption, for what asks what a field is."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import models

from django_asherah import fields


class EncryptedSlugField(fields.EncryptedFieldMixin[Any, Any], models.SlugField):
    """A class of one's own."""

    def load(self, payload: bytes) -> Any:
        return payload.decode()


class EncryptedDocumentField(fields.EncryptedFieldMixin[Any, Any], models.JSONField):
    """Another."""

    def dump(self, value: Any) -> bytes:
        return json.dumps(value).encode()

    def load(self, payload: bytes) -> Any:
        return json.loads(payload)


class Own(models.Model):
    document = EncryptedDocumentField()

    class Meta:
        app_label = "suite"


OPTIONS: dict[str, dict[str, Any]] = {
    "CharField": {"max_length": 20},
    "DecimalField": {"max_digits": 8, "decimal_places": 2},
    "SlugField": {"db_index": False},
    "TextField": {"null": True},
}
VALUES: dict[str, Any] = {
    "BigIntegerField": 2**40,
    "BinaryField": b"\x00\xff",
    "BooleanField": True,
    "CharField": "Zoë",
    "DateField": date(2026, 1, 2),
    "DateTimeField": datetime(2026, 1, 2, 3, 4, 5, 678000, UTC),
    "DecimalField": Decimal("1.50"),
    "DurationField": timedelta(days=1, seconds=2),
    "EmailField": "a@example.org",
    "FloatField": 0.5,
    "GenericIPAddressField": "2001:db8::1",
    "IntegerField": -7,
    "JSONField": {"a": [1, None, "<ö>"]},
    "SlugField": "a-b",
    "TextField": "a <b>\nc",
    "TimeField": time(3, 4, 5),
    "URLField": "https://example.org/?a=b&c=d",
    "UUIDField": UUID(int=7),
}
"""For each kind of field, which is its name too, a value."""


class KindManager(models.Manager[Any]):
    def get_by_natural_key(self, name: str) -> Any:
        return self.get(name=name)


class KindBase(models.Model):
    name = models.CharField(max_length=20, unique=True)

    objects = KindManager()

    class Meta:
        abstract = True

    def natural_key(self) -> tuple[str]:
        return (self.name,)


def _model(name: str, classes: dict[str, Any]) -> Any:
    made = {kind.lower(): cls(**OPTIONS.get(kind, {})) for kind, cls in classes.items()}
    return type(name, (KindBase,), {"__module__": "tests.ecosystem.suite.models", **made})


Plain = _model("Plain", {kind: getattr(models, kind) for kind in VALUES})
Sealed = _model("Sealed", {kind: getattr(fields, f"Encrypted{kind}", EncryptedSlugField) for kind in VALUES})
