"""The official Rust SDK, asherah 0.5.56, behind a field of ten lines that guards nothing."""

from django.db import models


def make_field():
    """Return a TextField whose values go through the SDK."""
    import asherah

    session = asherah.SessionFactory(
        {
            "ServiceName": "bench",
            "ProductID": "bench",
            "Metastore": "memory",
            "KMS": "static",
            "StaticMasterKeyHex": "5a" * 32,
            "EnableSessionCaching": True,
        }
    ).get_session("default")
    encrypt, decrypt = session.encrypt_bytes, session.decrypt_bytes

    class RustField(models.TextField):
        def get_db_prep_save(self, value, connection):
            return encrypt(value.encode())

        def from_db_value(self, value, expression, connection):
            return decrypt(value).decode()

    return RustField()
