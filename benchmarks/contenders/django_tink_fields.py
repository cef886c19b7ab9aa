"""django-tink-fields 0.5.0: Google Tink's C++ AES-256-GCM under a keyset file."""

from pathlib import Path

APPS = ["tink_fields"]


def prepare(directory):
    """Write a keyset of one key."""
    from tink import aead, json_proto_keyset_format, new_keyset_handle, secret_key_access

    aead.register()
    handle = new_keyset_handle(aead.aead_key_templates.AES256_GCM)
    path = Path(directory) / "tink-keyset.json"
    path.write_text(json_proto_keyset_format.serialize(handle, secret_key_access.TOKEN))
    return {"TINK_FIELDS_CONFIG": {"default": {"path": str(path), "cleartext": True}}}


def make_field():
    """Return its EncryptedTextField."""
    from tink_fields import EncryptedTextField

    return EncryptedTextField()
