"""One table whose column moved in."""

from __future__ import annotations

from django.db import models

from django_asherah.fields import EncryptedTextField


class Thing(models.Model):
    """A thing."""

    secret = EncryptedTextField(max_length=200)
