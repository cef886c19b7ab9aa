"""What an encrypted field would be without encryption, for tools that go by a field's class or internal type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import models

from django_asherah.fields.mixin import EncryptedFieldMixin


def find_plain_class(encrypted: type[EncryptedFieldMixin[Any, Any]]) -> type[models.Field[Any, Any]]:
    """Return the class of Django fields that a class of encrypted ones was made of; ``Field`` if it has no other."""
    kinds = (cls for cls in encrypted.__mro__ if cls not in EncryptedFieldMixin.__mro__)
    return next(
        (cls for cls in kinds if issubclass(cls, models.Field) and not issubclass(cls, EncryptedFieldMixin)),
        models.Field,
    )


def encrypted_classes() -> Iterator[type[EncryptedFieldMixin[Any, Any]]]:
    """Yield every class of encrypted fields that has been imported, your own as well."""
    waiting = list(EncryptedFieldMixin.__subclasses__())
    while waiting:
        cls = waiting.pop()
        waiting.extend(cls.__subclasses__())
        if find_plain_class(cls) is not models.Field:
            yield cls


class PlainView:
    """An encrypted field that names the kind of its values where Django needs to be told the kind of its column.

    It is for what only looks at a field; SQL is never made with it.
    """

    def __init__(self, field: EncryptedFieldMixin[Any, Any]) -> None:
        self._field = field

    def __getattr__(self, name: str) -> Any:
        return getattr(self._field, name)

    def get_internal_type(self) -> str:
        """Return the plain field's."""
        return find_plain_class(type(self._field)).get_internal_type(self._field)


def as_plain(field: Any) -> Any:
    """Return what to show of a field: an encrypted one's ``PlainView``, and any other as it is."""
    return PlainView(field) if isinstance(field, EncryptedFieldMixin) else field
