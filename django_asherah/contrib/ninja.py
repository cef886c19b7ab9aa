"""django-ninja, whose schemas go by a field's internal type."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from django_asherah.fields.plain import as_plain

_installed: set[Any] = set()


def install() -> None:
    """Give encrypted fields the plain fields' types in every ``ModelSchema`` and ``create_schema()`` from here on.

    Call it before the first of them is made, at the top of the module that has them. A second call changes nothing.

    Raises:
        ImportError: django-ninja is not installed.
        AttributeError: this release makes its schemas in another way.
    """
    factory: Any = import_module("ninja.orm.factory")
    get_schema_field = factory.get_schema_field
    if get_schema_field in _installed:
        return

    def get_plain_schema_field(field: Any, **options: Any) -> Any:
        return get_schema_field(as_plain(field), **options)

    _installed.add(get_plain_schema_field)
    factory.get_schema_field = get_plain_schema_field
