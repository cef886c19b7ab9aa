"""The bare envelope behind a field of a few lines: the least that a table of Asherah's records costs in Python."""

from contenders.envelope_floor import codec
from django.db import models


class BareField(models.TextField):
    """Seals and opens; checks nothing, knows one key, and has the placeholder that spares PostgreSQL arrays."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._encrypt, self._decrypt = codec()

    def get_placeholder(self, value, compiler, connection):
        """Return what stands for a value."""
        return "%s"

    def get_db_prep_save(self, value, connection):
        """Return the record."""
        return self._encrypt(value)

    def from_db_value(self, value, expression, connection):
        """Return the text."""
        return self._decrypt(value)


def make_field():
    """Return the field."""
    return BareField()
