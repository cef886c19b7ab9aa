"""Checks of MySQL's and MariaDB's sessions, with ``check --database``: what they make of values and of times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Tags, register
from django.core.checks import Warning as CheckWarning
from django.db import Error as DatabaseFailure
from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper

from django_asherah.fields.mixin import EncryptedFieldMixin

_STRICT = {"STRICT_TRANS_TABLES", "STRICT_ALL_TABLES"}

# Winter and summer: a zone may be UTC for half of the year. NULL if the server does not know its own zone's name.
_MOMENTS = ("2026-01-01 12:00:00", "2026-07-01 12:00:00")
_ZONE = "SELECT @@global.time_zone, @@system_time_zone, " + ", ".join(
    f"CONVERT_TZ('{moment}', '+00:00', @@global.time_zone) = '{moment}'" for moment in _MOMENTS
)


@register(Tags.database)
def check_sessions(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Report databases where MySQL or MariaDB would cut an encrypted value that a column can't hold."""
    return [message for alias in databases or () for message in _check_strictness(connections[alias])]


def _check_strictness(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    if connection.vendor != "mysql":
        return
    fields = [
        field
        for model in apps.get_models(include_auto_created=True)
        if router.allow_migrate_model(connection.alias, model)
        for field in model._meta.local_fields
        if isinstance(field, EncryptedFieldMixin)
    ]
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT @@sql_mode")
            modes = set(cursor.fetchone()[0].split(","))
    except DatabaseFailure:  # Other checks say so.
        return
    if not fields or modes & _STRICT:
        return
    yield CheckWarning(
        f"The sessions of database {connection.alias!r} are not strict, so {connection.display_name} cuts or replaces "
        f"what a column can't hold instead of refusing it, and what is left of an encrypted value can't be opened. "
        f"{len(fields)} encrypted fields are in danger, {fields[0].full_name} among them.",
        hint=f"Add 'STRICT_TRANS_TABLES' to sql_mode, in DATABASES[{connection.alias!r}]['OPTIONS'] or on the server.",
        id="asherah.W036",
    )


def check_zone(connection: BaseDatabaseWrapper, place: str) -> Iterator[CheckMessage]:
    """Report a key table whose ``created`` is a ``TIMESTAMP``, on a server of another time zone than UTC."""
    with connection.cursor() as cursor:
        cursor.execute(_ZONE)
        zone, system, *same = cursor.fetchone()
    if all(same):
        return
    name = f"{system}, its system's" if zone == "SYSTEM" else zone
    yield CheckWarning(
        f"{place} has a column 'created' of type timestamp, and the server's time zone is {name}. Django reads and "
        f"writes it in UTC; an SDK whose session is in another zone loses the keys that others make, and for an hour "
        f"of the year can't store any.",
        hint="Let default-time-zone = '+00:00' on the server and put the rows right, as the documentation says under "
        "'Adopt an Asherah table', or silence this if every other SDK's session is in UTC, or none uses the table.",
        id="asherah.W035",
    )
