"""What the lifecycle, the health function and the admin ask of a KMS that has regions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeGuard

from django_asherah.exceptions import AsherahError, KMSError
from django_asherah.kms.health import LastAnswer


class RegionalKMS(Protocol):
    """A KMS that wraps each system key once per region, so that any one region can unwrap it.

    It is a :class:`~django_asherah.envelope.interfaces.KeyManagementService` as well. How a wrapped key is stored is
    its own affair: nobody else reads it.
    """

    master_keys: Mapping[str, str]
    """Maps each configured region to the name of its master key (an ARN, say), the preferred region first."""

    def regions_of(self, wrapped: bytes) -> Mapping[str, str]:
        """Return the regions that a system key is wrapped for, each with the name of its master key. Asks no region.

        Raises:
            InvalidRecordError: another KMS wrapped it.
        """

    def decrypt_key_in(self, region: str, wrapped: bytes) -> bytearray:
        """Unwrap in ``region`` alone.

        Raises:
            KMSError: that region can't.
        """

    def check_region(self, region: str) -> None:
        """Ask whether the master key of ``region`` is enabled and of the right kind.

        Raises:
            KMSError: it isn't, or the region does not answer.
        """

    def check_wrap(self, region: str) -> None:
        """Ask whether ``region`` can wrap a key now.

        Raises:
            KMSError: it can't.
        """

    def rewrap(self, wrapped: bytes, *, old_master_keys: Iterable[str] = (), allow_missing: bool = False) -> bytes:
        """Return the same system key wrapped for exactly the configured regions; the same bytes if it already is.

        Args:
            wrapped: what ``encrypt_key`` returned.
            old_master_keys: names of master keys that are no longer configured, but may unwrap the key this once.
            allow_missing: go on when a region does not answer.

        Raises:
            KMSError: no region unwraps it, or a configured region can't wrap it.
        """

    def last_answers(self) -> Mapping[str, LastAnswer]:
        """Return how each region's last answer to this process was, for every region that was asked. Asks no region."""


_MEMBERS = ("master_keys", "regions_of", "decrypt_key_in", "check_region", "check_wrap", "rewrap", "last_answers")


def is_regional(kms: object) -> TypeGuard[RegionalKMS]:
    """Tell whether a KMS has regions.

    Raises:
        KMSError: it has some members of :class:`RegionalKMS` but not all. It is never taken for one without regions:
            nobody would ask them, and report that all is well.
    """
    missing = [name for name in _MEMBERS if not hasattr(kms, name)]
    if missing and len(missing) < len(_MEMBERS):
        raise KMSError(
            f"{type(kms).__name__} has regions, but no {' and no '.join(missing)}. "
            f"Implement {__name__}.{RegionalKMS.__name__}"
        )
    return not missing


def ask_regions(kms: RegionalKMS, ask: Callable[[str], object]) -> dict[str, AsherahError]:
    """Ask something of every region, the preferred one first; return the regions that failed, each with its cause."""
    failures: dict[str, AsherahError] = {}
    for region in kms.master_keys:
        try:
            ask(region)
        except AsherahError as exc:
            failures[region] = exc
    return failures
