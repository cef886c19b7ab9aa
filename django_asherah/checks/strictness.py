"""A check of the sessions in which encrypted values are stored, with ``check --database``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Tags, register
from django.core.checks import Warning as CheckWarning
from django.db import connections, router

from django_asherah.fields import EncryptedFieldMixin

_STRICT = frozenset({"STRICT_TRANS_TABLES", "STRICT_ALL_TABLES"})


@register(Tags.database)
def check_strictness(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Report MySQL connections that cut a record which is too long, and so lose its value, instead of refusing it."""
    return [
        CheckWarning(
            f"sessions of the database {alias!r} are not strict: a record that is too long for its column is cut, and "
            "its value is lost.",
            hint="Give sql_mode in the OPTIONS' init_command STRICT_TRANS_TABLES.",
            id="asherah.W130",
        )
        for alias in databases or ()
        if connections[alias].vendor == "mysql" and _holds_records(alias) and not _STRICT & _mode_of(connections[alias])
    ]


def _mode_of(connection: Any) -> set[str]:
    return set(connection.sql_mode)


def _holds_records(alias: str) -> bool:
    return any(
        isinstance(field, EncryptedFieldMixin)
        for model in apps.get_models(include_auto_created=True)
        if router.allow_migrate_model(alias, model)
        for field in model._meta.local_concrete_fields
    )
