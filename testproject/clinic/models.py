"""The clinics and their patients."""

from __future__ import annotations

from django.db import models

from django_asherah.fields import EncryptedJSONField, EncryptedQuerySet, EncryptedTextField


class Clinic(models.Model):
    """A clinic. What it encrypts is under keys of its own."""

    name = models.CharField(max_length=200, unique=True)

    def __str__(self) -> str:
        return self.name


class Patient(models.Model):
    """A patient. The social security number and the medical record are encrypted, each under the clinic's key."""

    clinic = models.ForeignKey(Clinic, models.PROTECT)
    name = models.CharField(max_length=200)
    ssn = EncryptedTextField("social security number", partition="clinic-{clinic_id}")
    record = EncryptedJSONField("medical record", partition="clinic-{clinic_id}")

    objects = EncryptedQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name
