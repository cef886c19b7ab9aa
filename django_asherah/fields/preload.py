"""The keys of many values at once."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from typing import Any

from django.db.models import QuerySet

from django_asherah.envelope.records import KeyMeta
from django_asherah.exceptions import EncryptionError
from django_asherah.fields.mixin import EncryptedFieldMixin
from django_asherah.fields.sealing import load_keys

ROWS_PER_FETCH = 2000


def preload_keys(queryset: QuerySet[Any]) -> None:
    """Load the keys of every encrypted value in ``queryset``, in a few queries.

    A query loads the keys of its rows by itself, some rows at a time. This loads those of all rows beforehand: where
    what is timed, or runs in an event loop, must not wait for a key. It reads the records once more for that.

    Args:
        queryset: rows of a model with encrypted fields; a slice will do.

    Raises:
        MetastoreError: the key table can't be read.
    """
    fields = [field for field in queryset.model._meta.concrete_fields if isinstance(field, EncryptedFieldMixin)]
    names = [column.attname for field in fields for column in field.partition_fields]
    metas: set[KeyMeta | None] = set()
    rows = queryset.values_list(*[field.raw_value() for field in fields], *names)
    for row in rows.iterator(chunk_size=ROWS_PER_FETCH):
        records, said = row[: len(fields)], iter(row[len(fields) :])
        for field, raw in zip(fields, records, strict=True):
            metas.add(_find_key(field, raw, list(islice(said, len(field.partition_fields)))))
    load_keys(metas)


def _find_key(field: EncryptedFieldMixin, raw: Any, place: list[Any]) -> KeyMeta | None:
    partition = None
    with suppress(EncryptionError):  # Whatever is wrong with a row is an error of whoever reads its value.
        partition = field.partition_of(place)
    return field.find_key(raw, partition)
