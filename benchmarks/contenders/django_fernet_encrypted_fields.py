"""django-fernet-encrypted-fields 0.4.0: Fernet under a key derived from SECRET_KEY."""

SETTINGS = {"SALT_KEY": "5a" * 16}
APPS = ["encrypted_fields"]


def make_field():
    """Return its EncryptedTextField."""
    from encrypted_fields.fields import EncryptedTextField

    return EncryptedTextField()
