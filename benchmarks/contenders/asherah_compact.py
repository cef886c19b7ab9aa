"""django-asherah's EncryptedTextField, compact record format."""

from contenders.asherah_json import APPS, SETTINGS

__all__ = ["APPS", "SETTINGS", "make_field"]


def make_field():
    """Return an EncryptedTextField with a binary column."""
    from django_asherah.fields import EncryptedTextField

    return EncryptedTextField(record_format="compact")
