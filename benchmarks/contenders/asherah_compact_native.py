"""django-asherah's EncryptedTextField, compact record format, with the native code installed."""

from contenders.asherah_compact import APPS, SETTINGS
from contenders.asherah_compact import make_field as make_any_field

__all__ = ["APPS", "SETTINGS", "make_field"]


def make_field():
    """Return the same field, which uses the native code if it is there."""
    import django_asherah_native

    assert django_asherah_native
    return make_any_field()
