"""What the lifecycle asks of a KMS that has regions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from django_asherah.kms.health import LastAnswer


@runtime_checkable
class RegionalKMS(Protocol):
    """A KMS that wraps each system key once a region: ``AwsKMS``, or your own."""

    master_keys: dict[str, str]
    """Maps each configured region to its master key's ARN, the preferred one first."""

    def decrypt_key_in(self, region: str, wrapped: bytes) -> bytearray:
        """Unwrap in ``region`` alone, or raise ``KMSError``."""

    def check_region(self, region: str) -> None:
        """Raise ``KMSError`` unless the region's master key is enabled and of the right kind."""

    def check_wrap(self, region: str) -> None:
        """Raise ``KMSError`` unless the region can wrap a key now."""

    def rewrap(self, wrapped: bytes, *, old_master_keys: Iterable[str] = (), allow_missing: bool = False) -> bytes:
        """Return the same system key wrapped for exactly the configured regions."""


@runtime_checkable
class ReportsHealth(Protocol):
    """A KMS that remembers how its regions answered, for those who must not ask them: ``AwsKMS``, or your own."""

    def last_answers(self) -> dict[str, LastAnswer]:
        """Return how each region's last answer to this process was, if it was asked."""
