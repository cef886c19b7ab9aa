"""Model fields that encrypt on save and decrypt when they are read."""

from django_asherah.fields.binary import EncryptedBinaryField, EncryptedUUIDField
from django_asherah.fields.json import EncryptedJSONField
from django_asherah.fields.mixin import EncryptedFieldMixin
from django_asherah.fields.numbers import (
    EncryptedBigIntegerField,
    EncryptedBooleanField,
    EncryptedDecimalField,
    EncryptedFloatField,
    EncryptedIntegerField,
)
from django_asherah.fields.preload import preload_keys
from django_asherah.fields.queryset import EncryptedQuerySet
from django_asherah.fields.strings import (
    EncryptedCharField,
    EncryptedEmailField,
    EncryptedGenericIPAddressField,
    EncryptedTextField,
    EncryptedURLField,
)
from django_asherah.fields.times import (
    EncryptedDateField,
    EncryptedDateTimeField,
    EncryptedDurationField,
    EncryptedTimeField,
)

__all__ = [
    "EncryptedBigIntegerField",
    "EncryptedBinaryField",
    "EncryptedBooleanField",
    "EncryptedCharField",
    "EncryptedDateField",
    "EncryptedDateTimeField",
    "EncryptedDecimalField",
    "EncryptedDurationField",
    "EncryptedEmailField",
    "EncryptedFieldMixin",
    "EncryptedFloatField",
    "EncryptedGenericIPAddressField",
    "EncryptedIntegerField",
    "EncryptedJSONField",
    "EncryptedQuerySet",
    "EncryptedTextField",
    "EncryptedTimeField",
    "EncryptedURLField",
    "EncryptedUUIDField",
    "preload_keys",
]
