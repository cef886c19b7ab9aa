"""strawberry-django, whose types go by a field's class."""

from __future__ import annotations

from django_asherah.fields.plain import encrypted_classes, find_plain_class


def install() -> None:
    """Give encrypted fields, those of your own classes too, the plain fields' types in GraphQL.

    Call it when the classes have been imported and before the schema is made. What has been set for a class by then
    stays. Binary fields and durations have no type, as with plain fields.

    Raises:
        ImportError: strawberry-django is not installed.
    """
    from strawberry_django.fields.types import field_type_map

    for cls in encrypted_classes():
        plain = field_type_map.get(find_plain_class(cls))
        if plain is not None:
            field_type_map.setdefault(cls, plain)
