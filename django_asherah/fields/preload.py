"""The keys of many values at once."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from django.db.models import ExpressionWrapper, F, QuerySet

from django_asherah import engine
from django_asherah.envelope.records import KeyMeta
from django_asherah.exceptions import DecryptionError
from django_asherah.fields.mixin import EncryptedFieldMixin

CHUNK = 2000


def preload_keys(queryset: QuerySet[Any]) -> None:
    """Bring the keys of every encrypted value in ``queryset`` into hand, in a few queries.

    Django hands a field one value at a time, so a key that is not in hand costs a query when its first value is met.
    Where a queryset meets many such keys, after years of rotations, this reads the records once more and then loads all
    their keys together.

    Args:
        queryset: rows of a model with encrypted fields; a slice will do.

    Raises:
        MetastoreError: the key table can't be read.
    """
    fields = [field for field in queryset.model._meta.concrete_fields if isinstance(field, EncryptedFieldMixin)]
    metas: set[KeyMeta | None] = set()
    for row in queryset.values_list(*[raw_value(field) for field in fields]).iterator(chunk_size=CHUNK):
        metas.update(meta_of(field, raw) for field, raw in zip(fields, row, strict=True))
    load_keys(metas)


def load_keys(metas: Iterable[KeyMeta | None]) -> None:
    """Bring these keys into hand; None stands for none.

    Raises:
        MetastoreError: the key table can't be read.
    """
    engine.get_factory().load_keys(meta for meta in metas if meta is not None)


def raw_value(field: EncryptedFieldMixin) -> ExpressionWrapper:
    """Return the expression that reads a field's column as it stands."""
    return ExpressionWrapper(F(field.name), output_field=field.raw_field())


def meta_of(field: EncryptedFieldMixin, raw: Any) -> KeyMeta | None:
    """Return the key that a column value names; None if it names none that the field could open."""
    if raw is not None and not field.is_plaintext(raw):
        with suppress(DecryptionError):
            return field.key_of(raw)
    return None
