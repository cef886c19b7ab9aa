"""Views for what is encrypted."""

from django_asherah.views.files import EncryptedFileView

__all__ = ["EncryptedFileView"]
