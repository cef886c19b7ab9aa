"""The keys of many values at once."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from django_asherah.envelope.records import KeyMeta
from django_asherah.fields.mixin import EncryptedFieldMixin
from django_asherah.fields.sealing import load_keys

ROWS_PER_FETCH = 2000


def preload_keys(queryset: QuerySet[Any]) -> None:
    """Load the keys of every encrypted value in ``queryset``, in a few queries.

    Django hands a field one value at a time, so a key that is not cached costs a query when its first value is met.
    Where a queryset meets many such keys, after years of rotations, this reads the records once more and then loads all
    their keys together.

    Args:
        queryset: rows of a model with encrypted fields; a slice will do.

    Raises:
        MetastoreError: the key table can't be read.
    """
    fields = [field for field in queryset.model._meta.concrete_fields if isinstance(field, EncryptedFieldMixin)]
    metas: set[KeyMeta | None] = set()
    for row in queryset.values_list(*[field.raw_value() for field in fields]).iterator(chunk_size=ROWS_PER_FETCH):
        metas.update(field.find_key(raw) for field, raw in zip(fields, row, strict=True))
    load_keys(metas)
