"""Instances that hold prepared values for a while, for what asks them and no field's ``pre_save``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from django.db import models
from msgspec import Struct

from django_asherah.exceptions import AsherahError
from django_asherah.fields.interfaces import RowField
from django_asherah.fields.sealed import PreparedValue


class Unprepared(Struct, frozen=True, gc=False):
    """What an instance held under the name of an attribute, which holds a prepared value for a while."""

    instance: models.Model
    name: str
    value: Any

    def __repr__(self) -> str:
        return "<Unprepared>"


def prepare_rows(instances: Iterable[models.Model], fields: Collection[RowField]) -> list[Unprepared]:
    """Let instances hold prepared values, and return what they held.

    Raises:
        AsherahError: a value can't be prepared; the instances are as they were.
    """
    held: list[Unprepared] = []
    try:
        for instance in instances:
            for field in fields:
                _prepare(field, instance, held)
    except BaseException as exc:
        restore_rows(held)
        # The frames below hold values, and a debug page shows what frames hold.
        raise exc.with_traceback(None)  # noqa: B904 - it is the same error
    return held


def restore_rows(held: Sequence[Unprepared]) -> None:
    """Undo :func:`prepare_rows`."""
    for each in reversed(held):  # One that was given twice has its value back at last.
        each.instance.__dict__[each.name] = each.value


def _prepare(field: RowField, instance: models.Model, held: list[Unprepared]) -> None:
    name = field.attname
    if name not in instance.__dict__:
        getattr(instance, name)
    value = instance.__dict__.get(name)
    if value is None or value.__class__ is PreparedValue:
        return
    try:
        prepared = field.prepare(value, instance)
    except AsherahError as exc:
        raise exc.at(field.full_name)  # noqa: B904 - it is the same error
    held.append(Unprepared(instance, name, value))
    instance.__dict__[name] = prepared
