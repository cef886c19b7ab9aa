"""Migrations of other apps that can't do without the key table."""

from __future__ import annotations

import sys
from typing import Any

from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.models import Field

from django_asherah.fields import EncryptedFieldMixin


class Dependents:
    """The ``run_before`` of the migration that makes the key table: all that may encrypt and are not applied yet.

    An app that sorts before ours would otherwise be migrated first, and its migrations don't say that they need the
    table. What is applied gets no such dependency: a database could be at odds with it, and to unapply ours would
    unapply others, tables of data included.
    """

    def __get__(self, migration: Migration | None, owner: type[Migration]) -> list[tuple[str, str]]:
        """Return the migrations, by app label and name; none if it is no loader that asks."""
        # A loader tells the migrations nothing of itself, so it is looked for on the stack.
        loader = sys._getframe(1).f_locals.get("self")
        return _unapplied(loader) if migration is not None and isinstance(loader, MigrationLoader) else []

    def __set__(self, migration: Migration, value: Any) -> None:
        """Leave it as it is: Django gives each migration a copy of what its class has."""


def _unapplied(loader: MigrationLoader) -> list[tuple[str, str]]:
    """Return the migrations that are not applied, of each app in which one has an encrypted field."""
    migrations: dict[tuple[str, str], Migration] = loader.disk_migrations or {}
    labels = {label for (label, _), migration in migrations.items() if _has_encrypted_field(migration.operations)}
    applied = loader.applied_migrations or {}
    return [
        key
        for key, migration in migrations.items()
        if key[0] in labels and applied.keys().isdisjoint([key, *migration.replaces])
    ]


def _has_encrypted_field(part: Any) -> bool:
    """Tell whether an operation has an encrypted field, or a list of operations or of an operation's arguments."""
    if isinstance(part, Operation):
        _, args, kwargs = part.deconstruct()
        return _has_encrypted_field([*args, *kwargs.values()])
    if isinstance(part, list | tuple):
        return any(map(_has_encrypted_field, part))
    return isinstance(part, Field) and isinstance(part, EncryptedFieldMixin)
