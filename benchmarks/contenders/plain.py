"""Django's own TextField: nothing is encrypted."""

from django.db import models


def make_field():
    """Return a TextField."""
    return models.TextField()


def read(field, raw, connection):
    """Return the column value as it is: a TextField has no ``from_db_value``."""
    return raw
