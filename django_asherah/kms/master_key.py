"""A master key: the seam that each provider of one implements, be it a cloud's KMS or an HSM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Failure:
    """What an exception of a provider's client means.

    Attributes:
        code: a short name for metrics: the provider's error code, or else the exception's class.
        is_passing: the provider answered at once that it can't answer now, so asking again may help.
        is_timeout: the provider did not answer in time, so asking again may cost as long again.
    """

    code: str
    is_passing: bool = False
    is_timeout: bool = False


class MasterKey(Protocol):
    """One master key, which never leaves its provider. Wraps KEKs of 32 bytes. Must be thread-safe and survive a fork.

    Each method asks the provider once, and may raise any exception: the caller tries again, asks another region,
    measures, reports, and keeps keys out of what is reported. So a method shall not do any of that itself.
    """

    name: str
    """What a wrapped KEK is stored with, for example the key's ARN: it tells which master key unwraps it."""

    def make_kek(self) -> tuple[bytes, bytes]:
        """Return a new random KEK, and the same KEK wrapped."""

    def wrap(self, kek: bytes) -> bytes:
        """Return ``kek`` wrapped."""

    def unwrap(self, wrapped: bytes) -> bytes:
        """Return the KEK that :meth:`wrap` or :meth:`make_kek` has wrapped."""

    def find_problem(self) -> str:
        """Return why the key can't wrap KEKs, though its provider answers; ``""`` if it can."""

    def explain(self, error: Exception) -> Failure:
        """Return what an exception of this key's methods means. Asks nobody."""

    def redact(self, error: Exception) -> Exception:
        """Return an exception of this key's methods without anything that may hold a KEK."""
