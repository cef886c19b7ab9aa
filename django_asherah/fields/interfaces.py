"""What the guards and the checks need to know of an encrypted field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from django.db import models

from django_asherah.fields.sealed import Keys
from django_asherah.fields.template import PartitionTemplate


class EncryptedField(Protocol):
    """An encrypted field, as far as others here ask about it."""

    allow_plaintext: bool
    template: PartitionTemplate | None

    @property
    def full_name(self) -> str:
        """The field's full name for messages, for example ``clinic.Patient.ssn``."""

    @property
    def record_kind(self) -> tuple[str | None, type, str]:
        """What two fields must share for the record of one to be a value of the other."""

    @property
    def unique(self) -> Any:
        """Whether no two rows may hold the same value."""

    @property
    def primary_key(self) -> Any:
        """Whether the field is its model's primary key."""


class RowField(EncryptedField, Protocol):
    """An encrypted field whose partition the row says, as far as the row is concerned."""

    partition: str | None

    @property
    def name(self) -> Any:
        """The field's name."""

    @property
    def attname(self) -> Any:
        """The attribute's name."""

    @property
    def model(self) -> Any:
        """The model whose table has the column."""

    @property
    def partition_fields(self) -> tuple[models.Field[Any, Any], ...]:
        """The columns that say the partition."""

    def partition_of(self, values: Sequence[Any]) -> str | None:
        """Return the partition of a row with these values in :attr:`partition_fields`."""

    def payload_of(self, raw: Any, partition: str | None = None, keys: Keys = ...) -> bytes:
        """Return the payload of what the column holds."""

    def load_safely(self, payload: bytes) -> Any:
        """Return the value that a payload holds."""

    def prepare(self, value: Any, instance: models.Model) -> Any:
        """Return a value that an instance holds, ready to be sealed."""
