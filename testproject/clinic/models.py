"""The clinic's patients."""

from __future__ import annotations

from django.db import models

from django_asherah.fields import EncryptedJSONField, EncryptedTextField


class Patient(models.Model):
    """A patient. The social security number and the medical record are encrypted in the database."""

    name = models.CharField(max_length=200)
    ssn = EncryptedTextField("social security number")
    record = EncryptedJSONField("medical record")

    def __str__(self) -> str:
        return self.name
