"""What the guards and the checks need to know of an encrypted field."""

from __future__ import annotations

from typing import Any, Protocol


class EncryptedField(Protocol):
    """An encrypted field, as far as others here ask about it."""

    allow_plaintext: bool

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
