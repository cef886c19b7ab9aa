"""Models with encrypted fields, for every way Django has of writing and reading them."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import ClassVar

from django.core.files.storage import InMemoryStorage
from django.core.serializers.json import DjangoJSONEncoder
from django.core.validators import RegexValidator
from django.db import models

from django_asherah.fields import (
    EncryptedBigIntegerField,
    EncryptedBinaryField,
    EncryptedBooleanField,
    EncryptedCharField,
    EncryptedDateField,
    EncryptedDateTimeField,
    EncryptedDecimalField,
    EncryptedDurationField,
    EncryptedEmailField,
    EncryptedFloatField,
    EncryptedGenericIPAddressField,
    EncryptedIntegerField,
    EncryptedJSONField,
    EncryptedTextField,
    EncryptedTimeField,
    EncryptedURLField,
    EncryptedUUIDField,
)
from django_asherah.storage import EncryptedStorage
from tests.testapp import tenants  # noqa: F401 - Django looks for an app's models in this module alone


class Note(models.Model):
    """One encrypted text."""

    title = models.CharField(max_length=100, blank=True)
    body = EncryptedTextField(null=True)
    other_body = EncryptedTextField(default="", blank=True)


class Document(models.Model):
    """One encrypted JSON document."""

    name = models.CharField(max_length=100, blank=True)
    doc = EncryptedJSONField(null=True)
    encoded = EncryptedJSONField(default=dict, encoder=DjangoJSONEncoder)


class Choosy(models.Model):
    """Everything that a TextField takes."""

    COLOURS: ClassVar[list[tuple[str, str]]] = [("r", "red"), ("g", "green")]

    short = EncryptedTextField(max_length=5)
    colour = EncryptedTextField(choices=COLOURS, default="r")
    digits = EncryptedTextField(blank=True, default="", validators=[RegexValidator(r"^\d*$")])


class Tenancy(models.Model):
    """Columns of two partitions, and two of one."""

    left = EncryptedTextField(partition="left", null=True)
    left_too = EncryptedTextField(partition="left", null=True)
    right = EncryptedTextField(partition="right", null=True)
    plain = models.TextField(null=True)
    doc = EncryptedJSONField(partition="left", null=True)


class Base(models.Model):
    """An abstract base."""

    secret = EncryptedTextField(default="")

    class Meta:
        abstract = True


class Parent(Base):
    """A concrete parent with a primary key that isn't an integer."""

    uuid = models.UUIDField(primary_key=True, default=uuid.uuid4)
    changed = models.DateTimeField(auto_now=True)


class Child(Parent):
    """A child in a table of its own."""

    child_secret = EncryptedTextField(default="")


class ParentProxy(Parent):
    """A proxy."""

    class Meta:
        proxy = True


class Visit(models.Model):
    """Points at a note."""

    note = models.ForeignKey(Note, models.CASCADE, related_name="visits")
    remark = EncryptedTextField(null=True)


class Compact(models.Model):
    """The compact record format, in a binary column, beside the JSON one."""

    body = EncryptedTextField(record_format="compact", null=True)
    doc = EncryptedJSONField(record_format="compact", null=True)
    apart = EncryptedTextField(record_format="compact", partition="left", default="", blank=True)
    json_bytes = EncryptedTextField(record_format="json-binary", null=True)
    plain = EncryptedTextField(null=True)


class Clinic(models.Model):
    """A tenant."""

    name = models.CharField(max_length=100, blank=True)


class Patient(models.Model):
    """Rows of many tenants, each with a key of its own, and one column that all share a key for."""

    clinic = models.ForeignKey(Clinic, models.PROTECT)
    name = models.CharField(max_length=100, blank=True)
    ssn = EncryptedTextField(partition="clinic-{clinic_id}", null=True)
    history = EncryptedJSONField(partition="clinic-{clinic_id}", default=dict)
    scan = EncryptedBinaryField(partition="clinic-{clinic_id}", record_format="compact", null=True)
    remark = EncryptedTextField(null=True)

    class Meta:
        db_table = "testapp_tenants_patient"  # The pages of the documentation make a Patient of their own.


class Typed(models.Model):
    """Two columns of every type: one with a default, one that may be NULL."""

    char = EncryptedCharField(max_length=50, default="")
    char_or_none = EncryptedCharField(max_length=50, null=True, blank=True)
    email = EncryptedEmailField(default="")
    email_or_none = EncryptedEmailField(null=True, blank=True)
    url = EncryptedURLField(default="")
    url_or_none = EncryptedURLField(null=True, blank=True)
    ip = EncryptedGenericIPAddressField(default="::1")
    ip_or_none = EncryptedGenericIPAddressField(null=True, blank=True)
    integer = EncryptedIntegerField(default=0)
    integer_or_none = EncryptedIntegerField(null=True, blank=True)
    big = EncryptedBigIntegerField(default=0)
    big_or_none = EncryptedBigIntegerField(null=True, blank=True)
    float = EncryptedFloatField(default=0.0)
    float_or_none = EncryptedFloatField(null=True, blank=True)
    decimal = EncryptedDecimalField(max_digits=10, decimal_places=2, default=Decimal(0))
    decimal_or_none = EncryptedDecimalField(max_digits=10, decimal_places=2, null=True, blank=True)
    boolean = EncryptedBooleanField(default=False)
    boolean_or_none = EncryptedBooleanField(null=True, blank=True)
    date = EncryptedDateField(default=date(2026, 1, 1))
    date_or_none = EncryptedDateField(null=True, blank=True)
    moment = EncryptedDateTimeField(default=datetime(2026, 1, 1, tzinfo=UTC))
    moment_or_none = EncryptedDateTimeField(null=True, blank=True)
    time = EncryptedTimeField(default=time())
    time_or_none = EncryptedTimeField(null=True, blank=True)
    duration = EncryptedDurationField(default=timedelta())
    duration_or_none = EncryptedDurationField(null=True, blank=True)
    uuid = EncryptedUUIDField(default=uuid.UUID(int=0))
    uuid_or_none = EncryptedUUIDField(null=True, blank=True)
    binary = EncryptedBinaryField(default=b"")
    binary_or_none = EncryptedBinaryField(null=True, blank=True)


class Stamped(models.Model):
    """Columns that fill themselves."""

    added = EncryptedDateTimeField(auto_now_add=True)
    changed = EncryptedDateTimeField(auto_now=True)
    day = EncryptedDateField(auto_now=True)
    hour = EncryptedTimeField(auto_now_add=True)


class Attachment(models.Model):
    """An encrypted file."""

    file = models.FileField(storage=EncryptedStorage(InMemoryStorage(), base_url="/files/"))
