"""django-field-encryption 0.2.3: AES-256-GCM under one key from the settings."""

SETTINGS = {
    "DATA_PROTECTION_KEYS": {"bench": "5a" * 16},
    "DATA_PROTECTION_ACTIVE_KEY_ID": "bench",
}


def make_field():
    """Return its EncryptedTextField."""
    from django_field_encryption.fields import EncryptedTextField

    return EncryptedTextField()
