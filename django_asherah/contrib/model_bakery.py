"""model_bakery, whose generators go by a field's class."""

from __future__ import annotations

from django_asherah.fields.plain import encrypted_classes, find_plain_class


def install() -> None:
    """Have ``baker`` fill encrypted fields, those of your own classes too, as it fills the plain ones.

    Call it when the classes have been imported, in a ``conftest.py`` for example. A generator that has been added for
    a class by then stays.

    Raises:
        ImportError: model_bakery is not installed.
    """
    from model_bakery import generators

    known = generators.get_type_mapping() | generators.user_mapping
    for cls in encrypted_classes():
        generator = known.get(find_plain_class(cls))
        if generator is not None:
            generators.user_mapping.setdefault(cls, generator)
