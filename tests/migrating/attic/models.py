"""What an app has whose label comes before ``django_asherah``."""

from __future__ import annotations

from django.db import models

from django_asherah.fields import EncryptedDateField, EncryptedDateTimeField, EncryptedTextField, EncryptedTimeField


class Box(models.Model):
    """A box in the attic."""

    name = models.CharField(max_length=20)
    secret = EncryptedTextField(default="what Box holds")
    stored = EncryptedDateTimeField(auto_now_add=True)
    moved = EncryptedDateTimeField(auto_now=True)
    day = EncryptedDateField(auto_now_add=True)
    hour = EncryptedTimeField(auto_now=True)
