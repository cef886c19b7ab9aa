"""What the field tests share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, models, transaction

from django_asherah import engine
from django_asherah.envelope.records import decode_row
from django_asherah.exceptions import PartitionMismatchError


def raw(instance: models.Model, name: str) -> Any:
    """Return what the database holds in a column."""
    field = instance._meta.get_field(name)
    with connection.cursor() as cursor:
        table, key = field.model._meta.db_table, field.model._meta.pk
        cursor.execute(
            f"SELECT {connection.ops.quote_name(field.column)} FROM {table} WHERE {key.column} = %s",
            [key.get_db_prep_value(instance.pk, connection)],
        )
        return cursor.fetchone()[0]


def set_raw(instance: models.Model, name: str, value: Any) -> None:
    """Put something into a column behind Django's back."""
    field = instance._meta.get_field(name)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {field.model._meta.db_table} SET {connection.ops.quote_name(field.column)} = %s "
            f"WHERE {field.model._meta.pk.column} = %s",
            [value, field.model._meta.pk.get_db_prep_value(instance.pk, connection)],
        )


def opened(instance: models.Model, name: str) -> bytes:
    """Return what the record in a column seals, opened without the field."""
    text = raw(instance, name)
    assert decode_row(text)
    return engine.get_session(getattr(instance._meta.get_field(name), "partition", None)).decrypt(text)


def record_of(instance: models.Model, name: str) -> Any:
    """Return what the database holds in a column, as the field's column gives it: str, bytes or None."""
    field: Any = instance._meta.get_field(name)
    rows = type(instance)._base_manager.using(instance._state.db).filter(pk=instance.pk)
    record = rows.annotate(stored=field.raw_value()).values_list("stored", flat=True).get()
    return bytes(record) if isinstance(record, memoryview) else record


def is_sealed_for(instance: models.Model, name: str, partition: str) -> bool:
    """Tell whether the record in a column is one of this partition, and opens there."""
    try:
        return engine.get_session(partition).decrypt(record_of(instance, name)) is not None
    except PartitionMismatchError:
        return False


@contextmanager
def refused(error: type[Exception], match: str) -> Iterator[pytest.ExceptionInfo[Exception]]:
    """Expect an error that says ``match``, and that a transaction around it goes on."""
    with pytest.raises(error, match=match) as caught, transaction.atomic():
        yield caught
