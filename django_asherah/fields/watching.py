"""What Django tells of models and of their instances: that they are prepared, made and saved."""

from __future__ import annotations

from inspect import getattr_static
from typing import Any

from django.db import models
from django.db.models.signals import class_prepared, post_init, post_save, pre_save

from django_asherah.fields.constraints import guard_constraints
from django_asherah.fields.moves import require_whole_moves
from django_asherah.fields.records import is_encrypted
from django_asherah.fields.rows import forget_columns, remember, row_fields
from django_asherah.fields.unprepared import prepare_rows, restore_rows

_UNPREPARED = "unprepared"


def _before_save(sender: Any, instance: models.Model, raw: bool, using: str, update_fields: Any, **kwargs: Any) -> None:
    restore_rows(instance._state.__dict__.pop(_UNPREPARED, ()))  # Of a save that failed.
    if raw:
        # An attribute that another descriptor is wrapped around does not see who asks it.
        wrapped = [field for field in row_fields(sender) if not _knows_writers(sender, field.attname)]
        instance._state.__dict__[_UNPREPARED] = prepare_rows([instance], wrapped)
    elif update_fields is not None:
        require_whole_moves([instance], update_fields, using)


def _after_save(sender: Any, instance: models.Model, update_fields: Any, **kwargs: Any) -> None:
    restore_rows(instance._state.__dict__.pop(_UNPREPARED, ()))
    remember(sender, instance, update_fields)


def _knows_writers(model: type[models.Model], name: str) -> bool:
    return getattr(getattr_static(model, name), "knows_writers", False) is True


def watch(sender: Any, **kwargs: Any) -> None:
    """Let the instances of a model remember their row, if it has encrypted fields whose partition the row says.

    What its constraints would ask of any encrypted field is refused.
    """
    forget_columns(sender)
    if any(map(is_encrypted, sender._meta.local_fields)):
        guard_constraints(sender)
    if not sender._meta.abstract and row_fields(sender):
        post_init.connect(remember, sender=sender)
        pre_save.connect(_before_save, sender=sender)
        post_save.connect(_after_save, sender=sender)


class_prepared.connect(watch)
