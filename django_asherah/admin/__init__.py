"""Django's admin: the keys, to be looked at, verified and revoked; and a mixin for models with encrypted fields."""

from django_asherah.admin.fields import EncryptedFieldsAdminMixin
from django_asherah.admin.keys import EncryptionKeyAdmin

__all__ = ["EncryptedFieldsAdminMixin", "EncryptionKeyAdmin"]
