"""django-cryptography-5 2.0.3: Fernet over a pickled value."""

from django.db import models


def make_field():
    """Return an encrypted TextField."""
    from django_cryptography.fields import encrypt

    return encrypt(models.TextField())
