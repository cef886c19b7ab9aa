"""Models whose rows say their partition, by columns of every kind that may say it."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import models

from django_asherah.fields import (
    EncryptedBinaryField,
    EncryptedDateField,
    EncryptedIntegerField,
    EncryptedJSONField,
    EncryptedQuerySet,
    EncryptedTextField,
)


class Member(models.Model):
    """A tenant that is text, whatever the text."""

    tenant = models.CharField(max_length=255)
    name = models.CharField(max_length=50, default="", unique=True)
    secret = EncryptedTextField(partition="member-{tenant}", null=True)
    spare = EncryptedTextField(partition="member-{tenant}", null=True)
    photo = EncryptedBinaryField(partition="member-{tenant}", record_format="compact", null=True)

    objects = EncryptedQuerySet.as_manager()


class Referral(models.Model):
    """Points at a member, or at nobody."""

    member = models.ForeignKey(Member, models.CASCADE, null=True)


class Account(models.Model):
    """A tenant that is a UUID; values of several types, in every record format."""

    owner = models.UUIDField(default=uuid.uuid4)
    secret = EncryptedTextField(partition="owner-{owner}", record_format="compact", null=True)
    born = EncryptedDateField(partition="owner-{owner}", null=True)
    score = EncryptedIntegerField(partition="owner-{owner}", record_format="json-binary", null=True)
    notes = EncryptedJSONField(partition="owner-{owner}", default=dict)


class Bed(models.Model):
    """Two columns that say the partition together, and one key for each of their pairs."""

    class Ward(models.TextChoices):
        NORTH = "north"
        SOUTH = "south wing"

    ward = models.CharField(max_length=20, choices=Ward.choices)
    number = models.IntegerField()
    secret = EncryptedTextField(partition="bed-{ward}:{number}", null=True)


class Ticket(models.Model):
    """A date, a truth value and a choice among integers, each for a partition of its own."""

    class Level(models.IntegerChoices):
        LOW = -1
        HIGH = 7

    day = models.DateField()
    is_paid = models.BooleanField(default=False)
    level = models.SmallIntegerField(choices=Level.choices, default=Level.HIGH)
    by_day = EncryptedTextField(partition="day-{day}", null=True)
    by_payment = EncryptedTextField(partition="paid-{is_paid}", null=True)
    by_level = EncryptedTextField(partition="level-{level}", null=True)


class Stay(models.Model):
    """A composite primary key, a part of which says the partition."""

    pk = models.CompositePrimaryKey("house", "number")
    house = models.IntegerField()
    number = models.IntegerField()
    secret = EncryptedTextField(partition="house-{house}", null=True)


class TenantBase(models.Model):
    """An abstract base that two models take the column and the field from."""

    tenant = models.CharField(max_length=50)
    secret = EncryptedTextField(partition="books-{tenant}", null=True)

    class Meta:
        abstract = True


class Invoice(TenantBase):
    """One of the two."""


class Offer(TenantBase):
    """The other."""


class Staff(models.Model):
    """A parent whose own column says the partition."""

    site = models.IntegerField()
    name = models.CharField(max_length=50, default="")
    salary = EncryptedTextField(partition="site-{site}", null=True)


class Doctor(Staff):
    """A child with a table, a partition column and an encrypted column of its own."""

    unit = models.IntegerField()
    licence = EncryptedTextField(partition="unit-{unit}", null=True)


class StaffProxy(Staff):
    """A proxy."""

    class Meta:
        proxy = True


class LetterManager(models.Manager["Letter"]):
    """Finds a letter by its number."""

    def get_by_natural_key(self, number: str) -> Any:
        return self.get(number=number)


class Letter(models.Model):
    """A natural key, and a foreign key that the database does not know of."""

    clinic = models.ForeignKey("testapp.Clinic", models.CASCADE, db_constraint=False)
    number = models.CharField(max_length=20, unique=True)
    text = EncryptedTextField(partition="clinic-{clinic_id}")

    objects = LetterManager()

    def natural_key(self) -> tuple[str]:
        """Return what fixtures name it by."""
        return (self.number,)
