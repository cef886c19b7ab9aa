"""Fields that hold another field, such as an array's: an encrypted one in there has no column."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage, Error
from django.db.models import Field

from django_asherah.fields import EncryptedFieldMixin


def check_wrapper(field: Any) -> Iterator[CheckMessage]:
    """Yield an error if a field that is not encrypted itself has an encrypted one for what it holds."""
    inner = None if isinstance(field, EncryptedFieldMixin) else next(_encrypted_in(field), None)
    if inner is not None:
        yield Error(
            f"{type(field).__name__} {field.name!r} is made of {type(inner).__name__}, which works as a column of its "
            "own only.",
            hint="Encrypt the whole: use an EncryptedJSONField, or a field of your own of EncryptedFieldMixin and "
            f"{type(field).__name__}.",
            obj=field,
            id="asherah.E119",
        )


def _encrypted_in(part: Any, depth: int = 9) -> Iterator[EncryptedFieldMixin]:
    """Yield the encrypted fields in a field's attributes, or in a container; ``depth`` ends what holds itself."""
    parts = part if isinstance(part, list | tuple) else (part if isinstance(part, dict) else vars(part)).values()
    for each in parts:
        if isinstance(each, Field) and _is_column(each):
            continue
        if isinstance(each, EncryptedFieldMixin):
            yield each
        elif isinstance(each, dict | list | tuple | Field) and depth:
            yield from _encrypted_in(each, depth - 1)


def _is_column(field: Any) -> bool:
    """Tell whether it is a field of a model, which others only refer to."""
    model = getattr(field, "model", None)
    return model is not None and any(each is field for each in model._meta.local_fields)
