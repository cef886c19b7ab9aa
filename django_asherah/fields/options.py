"""Options of plain fields that an encrypted one can't have."""

from __future__ import annotations

from django.apps import apps
from django.core import checks
from django.db.models.fields import NOT_PROVIDED

from django_asherah.fields.interfaces import EncryptedField


def check_options(field: EncryptedField) -> list[checks.CheckMessage]:
    """Return what is wrong with a field's options: ``asherah.E101`` to ``E104``, ``E118`` and ``W105``."""
    # A random nonce makes every record differ, so uniqueness and order of the values can't be seen.
    wrong = {
        "asherah.E101": ("unique", field.unique and not field.primary_key),
        "asherah.E102": ("primary_key", field.primary_key),
        "asherah.E103": ("db_index", getattr(field, "db_index", False)),
        "asherah.E104": ("db_default", getattr(field, "db_default", NOT_PROVIDED) is not NOT_PROVIDED),
    }
    found: list[checks.CheckMessage] = [
        checks.Error(
            f"An encrypted field can't have {option!r}.",
            hint="The database sees only random-looking records. Remove the option.",
            obj=field,
            id=id,
        )
        for id, (option, given) in wrong.items()
        if given
    ]
    if not apps.is_installed("django_asherah"):
        found.append(
            checks.Error(
                "An encrypted field needs 'django_asherah' in INSTALLED_APPS.",
                hint="Add it and run migrate: the app has the key table, and the checks of models and settings.",
                obj=field,
                id="asherah.E118",
            )
        )
    if field.allow_plaintext:
        found.append(
            checks.Warning(
                "allow_plaintext is on: what was not encrypted yet is read as it is.",
                hint="Run asherah_reencrypt, see with asherah_verify --data that nothing is left, and remove it.",
                obj=field,
                id="asherah.W105",
            )
        )
    return found
