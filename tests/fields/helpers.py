"""What the field tests share."""

from __future__ import annotations

from typing import Any

from django.db import connection, models

from django_asherah import engine
from django_asherah.envelope.records import decode_row


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
