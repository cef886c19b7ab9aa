"""As many bytes as a compact record of 100, in a binary column and not encrypted: what storing one costs alone."""

from django.db import models


class DoubledField(models.BinaryField):
    """Stores a text twice, and reads it once."""

    def get_db_prep_value(self, value, connection, prepared=False):
        """Return the text twice, as bytes."""
        return super().get_db_prep_value(value.encode() * 2, connection, prepared)

    def from_db_value(self, value, expression, connection):
        """Return the first half as text."""
        return bytes(value)[: len(value) // 2].decode()


def make_field():
    """Return the field."""
    return DoubledField()
