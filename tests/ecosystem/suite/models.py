"""One model for each package that does something with a model."""

from __future__ import annotations

import reversion
from auditlog.registry import auditlog
from django.db import models
from simple_history.models import HistoricalRecords

from django_asherah.fields import EncryptedJSONField, EncryptedTextField
from tests.ecosystem.suite import kinds  # noqa: F401


class Secrets(models.Model):
    """What they all have."""

    name = models.CharField(max_length=50, blank=True)
    secret = EncryptedTextField(max_length=20)
    doc = EncryptedJSONField(default=dict, blank=True)

    class Meta:
        abstract = True


class Patient(Secrets):
    """For what reads and writes."""


class Documented(models.Model):
    """The patient of the page that says how to use these packages."""

    ssn = EncryptedTextField(null=True)
    record = EncryptedJSONField(default=dict)


class Historical(Secrets):
    """django-simple-history."""

    history = HistoricalRecords(user_db_constraint=False)  # This app has no migrations, and auth has.


class Resident(models.Model):
    """A row that says whose key its values have, for what reads and writes."""

    clinic = models.ForeignKey("testapp.Clinic", models.CASCADE)
    name = models.CharField(max_length=50, blank=True)
    secret = EncryptedTextField(partition="clinic-{clinic_id}", max_length=20)
    doc = EncryptedJSONField(partition="clinic-{clinic_id}", default=dict, blank=True)


class ResidentWithHistory(models.Model):
    """The same for django-simple-history, whose copies of the row say the same."""

    clinic = models.ForeignKey("testapp.Clinic", models.CASCADE)
    secret = EncryptedTextField(partition="clinic-{clinic_id}", max_length=20)
    doc = EncryptedJSONField(partition="clinic-{clinic_id}", default=dict, blank=True)

    history = HistoricalRecords(user_db_constraint=False)


class Versioned(Secrets):
    """django-reversion as it is: it writes plaintext."""


class VersionedWithout(Secrets):
    """django-reversion as we document it."""

    secret = EncryptedTextField(null=True)


class Logged(Secrets):
    """django-auditlog as it is: it writes plaintext."""


class LoggedMasked(Secrets):
    """django-auditlog with its own mask: it writes half of the plaintext."""


class LoggedWithout(Secrets):
    """django-auditlog as we document it."""


class LoggedThatItChanged(Secrets):
    """django-auditlog with a mask that leaves nothing."""


class LoggedWhole(Secrets):
    """django-auditlog with copies of the whole row, which no list of fields is looked at for: it writes plaintext."""


class LoggedWholeMasked(Secrets):
    """The same with a mask that leaves nothing: it is for strings, so a document is written as it is."""


class LoggedWholeWithout(Secrets):
    """django-auditlog with copies of the row as we document it."""


def mask(value: str) -> str:
    """Return what stands for any value."""
    return "(encrypted)"


reversion.register(Versioned)
reversion.register(VersionedWithout, exclude=["secret", "doc"])
auditlog.register(Logged)
auditlog.register(LoggedMasked, mask_fields=["secret", "doc"])
auditlog.register(LoggedWithout, exclude_fields=["secret", "doc"])
auditlog.register(LoggedThatItChanged, mask_fields=["secret", "doc"], mask_callable="tests.ecosystem.suite.models.mask")
auditlog.register(LoggedWhole, exclude_fields=["secret", "doc"], serialize_data=True)
auditlog.register(
    LoggedWholeMasked,
    mask_fields=["secret", "doc"],
    mask_callable="tests.ecosystem.suite.models.mask",
    serialize_data=True,
)
auditlog.register(
    LoggedWholeWithout, exclude_fields=["secret", "doc"], serialize_data=True, serialize_auditlog_fields_only=True
)
