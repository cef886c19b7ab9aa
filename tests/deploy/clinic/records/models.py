"""What is in each tenant's schema."""

from __future__ import annotations

from django.db import models

from django_asherah.fields import EncryptedTextField


class Visit(models.Model):
    """One encrypted text."""

    remark = EncryptedTextField()
