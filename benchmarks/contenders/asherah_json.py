"""django-asherah's EncryptedTextField, JSON record format: what every official SDK reads."""

SETTINGS = {
    "ASHERAH": {"SERVICE": "bench", "PRODUCT": "bench", "KMS": "static", "KMS_OPTIONS": {"key": "5a" * 32}},
}
APPS = ["django_asherah"]


def make_field():
    """Return an EncryptedTextField."""
    from django_asherah.fields import EncryptedTextField

    return EncryptedTextField()
