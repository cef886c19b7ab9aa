"""The one error tree. Every failure that django-asherah reports is one of these.

No message ever carries a plaintext value, key bytes or a whole ciphertext.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self


class AsherahError(Exception):
    """Root of the tree. The message says what failed, where, and what to do."""

    def at(self, where: str) -> Self:
        """Put ``where`` (for example ``clinic.Patient.ssn``) before the message; returns the same error."""
        self.args = (f"{where}: {self}", *self.args[1:])
        return self


class EncryptionError(AsherahError):
    """A value could not be encrypted. Nothing was stored."""


class DecryptionError(AsherahError):
    """A record could not be opened: a wrong key and tampering look the same, by design."""


class InvalidRecordError(DecryptionError):
    """Not a record at all, or one that exceeds a limit."""


class PartitionMismatchError(DecryptionError):
    """A record of another partition."""


class KeyNotFoundError(AsherahError):
    """The metastore has no key with this id and creation time."""


class KMSError(AsherahError):
    """Every region's KMS failed. ``failures`` maps each region to its cause."""

    def __init__(self, message: str, failures: Mapping[str, Exception] | None = None) -> None:
        super().__init__(message)
        self.failures: dict[str, Exception] = dict(failures or {})


class MetastoreError(AsherahError):
    """The key table (or whatever stores the key records) failed."""


class ProofError(AsherahError):
    """Another library's field was not shown to have its right key. Nothing was copied."""
