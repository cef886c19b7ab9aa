"""One region: its master key, asked with retries, timed, and remembered for how it answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from django_asherah.envelope.aead import KEY_LENGTH
from django_asherah.envelope.interfaces import KMSCalled, Listener, RegionFailed
from django_asherah.exceptions import DecryptionError, KMSError
from django_asherah.kms.health import RegionHealth
from django_asherah.kms.kek import RegionKek
from django_asherah.kms.master_key import MasterKey

T = TypeVar("T")

MAKE, WRAP, UNWRAP, LOOK = "GenerateDataKey", "Encrypt", "Decrypt", "DescribeKey"
"""What a master key is asked for, by the names that AWS KMS gives these actions. Events and metrics carry them."""


class Region:
    """Asks one master key.

    Whatever the master key raises is returned, and never raised: the frames of this class hold KEKs, and whoever shows
    the frames of an error would show them.

    Args:
        name: the region's.
        key: its master key.
        health: is told how the region answered.
        max_attempts: how often a region is asked that answers at once that it can't answer now.
        on_event: is told of every ``KMSCalled`` and ``RegionFailed``.
        clock: seconds from any fixed point.
    """

    def __init__(
        self,
        name: str,
        key: MasterKey,
        health: RegionHealth,
        *,
        max_attempts: int,
        on_event: Listener,
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self._key = key
        self._health = health
        self._max_attempts = max_attempts
        self._notify = on_event
        self._clock = clock

    def make_kek(self) -> tuple[bytes, RegionKek] | Exception:
        """Return a new KEK and the same wrapped, or why there is none."""

        def make() -> tuple[bytes, bytes]:
            kek, blob = self._key.make_kek()
            return _require_kek(kek), _require_blob(blob)

        made = self._ask(MAKE, make)
        return made if isinstance(made, Exception) else (made[0], self._wrapped(made[1]))

    def wrap(self, kek: bytes, on_event: Listener | None = None) -> RegionKek | Exception:
        """Return ``kek`` wrapped, or why it isn't. ``on_event`` hears of the calls in place of the usual listener."""
        blob = self._ask(WRAP, lambda: _require_blob(self._key.wrap(kek)), on_event)
        return blob if isinstance(blob, Exception) else self._wrapped(blob)

    def unwrap(self, entry: RegionKek) -> bytes | Exception:
        """Return the KEK, or why it can't be unwrapped.

        The stored name of the master key is not looked at: whoever writes to the key table could name their own.
        """
        return self._ask(UNWRAP, lambda: _require_kek(self._key.unwrap(entry.encrypted_kek)))

    def find_problem(self) -> str | Exception:
        """Return why the master key can't wrap, ``""`` if it can, or why it could not be asked."""
        return self._ask(LOOK, self._key.find_problem)

    def timed_out(self, cause: Exception) -> bool:
        """Tell whether an exception that this region has returned means that it did not answer in time."""
        return self._key.explain(cause).is_timeout

    def report(self, operation: str, cause: Exception, consequence: str) -> None:
        """Tell the listener that the region failed, and what follows from it."""
        self._health.failed(self.name)  # It may have answered, but with another KEK.
        self._notify(RegionFailed(self.name, self._key.name, operation, consequence, cause))

    def error(self, what: str, cause: Exception | None = None) -> KMSError:
        """Return an error that names the master key, the region and the cause."""
        text = f": {type(cause).__name__}: {cause}" if cause else ""
        error = KMSError(f"the master key {self._key.name} of region {self.name} {what}{text}")
        error.failures[self.name] = cause or error
        return error

    def _wrapped(self, blob: bytes) -> RegionKek:
        return RegionKek(self.name, self._key.name, blob)

    def _ask(self, operation: str, call: Callable[[], T], on_event: Listener | None = None) -> T | Exception:
        """Ask the master key. What fails at once is tried again, what timed out is not."""
        for attempt in range(1, self._max_attempts + 1):
            try:
                with self._timed(operation, on_event or self._notify):
                    answer = call()
            except Exception as exc:
                if attempt < self._max_attempts and self._key.explain(exc).is_passing:
                    continue
                self._health.failed(self.name)
                return self._key.redact(exc)
            self._health.succeeded(self.name)
            return answer
        raise AssertionError("unreachable")

    @contextmanager
    def _timed(self, operation: str, notify: Listener) -> Iterator[None]:
        started, error = self._clock(), None
        try:
            yield
        except Exception as exc:
            error = self._key.explain(exc).code
            raise
        finally:
            notify(KMSCalled(self.name, operation, self._clock() - started, error))


def _require_kek(kek: object) -> bytes:
    """Return the KEK of an answer, which a broken provider may have left out or cut off."""
    if not isinstance(kek, bytes) or len(kek) != KEY_LENGTH:
        raise DecryptionError(f"its answer holds no data key of {KEY_LENGTH} bytes")
    return kek


def _require_blob(blob: object) -> bytes:
    """Return the wrapped KEK of an answer."""
    if not isinstance(blob, bytes) or not blob:
        raise DecryptionError("its answer holds no ciphertext")
    return blob
