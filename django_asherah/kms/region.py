"""One region: its master key, asked with retries, timed, and remembered for how it answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hmac import compare_digest
from typing import TypeVar

from django_asherah.deadlines import DeadlineError, Deadlines
from django_asherah.envelope.aead import KEY_LENGTH
from django_asherah.envelope.interfaces import KMSCalled, Listener, RegionFailed
from django_asherah.exceptions import DecryptionError, KMSError
from django_asherah.kms.health import RegionHealth
from django_asherah.kms.kek import MAX_CIPHERTEXT_LENGTH, RegionKek
from django_asherah.kms.master_key import Failure, MasterKey

T = TypeVar("T")

MAKE, WRAP, UNWRAP, LOOK = "GenerateDataKey", "Encrypt", "Decrypt", "DescribeKey"
"""What a master key is asked for, by the names that AWS KMS gives these actions. Events and metrics carry them."""

PAUSE = 0.1
"""Seconds at most before the second attempt, and twice as long before each further one."""


class Region:
    """Asks one master key.

    Whatever the master key raises is returned, and never raised: the frames of this class hold KEKs, and whoever shows
    the frames of an error would show them.

    Args:
        name: the region's.
        key: its master key.
        health: is told how the region answered.
        deadline: seconds that one question may take, with all its attempts and the pauses between them.
        max_attempts: how often a region is asked that answers at once that it can't answer now.
        on_event: is told of every ``KMSCalled`` and ``RegionFailed``.
        clock: seconds from any fixed point.
        sleep: waits for that many seconds.
        random: returns a number from 0 up to 1, by which a pause is cut: processes shall not all ask again at once.
    """

    def __init__(
        self,
        name: str,
        key: MasterKey,
        health: RegionHealth,
        *,
        deadline: float,
        max_attempts: int,
        on_event: Listener,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        random: Callable[[], float],
    ) -> None:
        self.name = name
        self._key = key
        self._health = health
        self._max_attempts = max_attempts
        self._notify = on_event
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._deadline = deadline
        self._deadlines = Deadlines(f"the KMS of region {name}")

    def make_kek(self) -> tuple[bytes, RegionKek] | Exception:
        """Return a new KEK and the same wrapped, which the region has opened once, or why there is none."""

        def make() -> tuple[bytes, bytes]:
            kek, blob = self._key.make_kek()
            return _require_kek(kek), _require_blob(blob)

        made = self._ask(MAKE, make)
        if isinstance(made, Exception):
            return made
        kek, blob = made
        entry = self._proven(blob, kek)
        return entry if isinstance(entry, Exception) else (kek, entry)

    def wrap(self, kek: bytes, on_event: Listener | None = None) -> RegionKek | Exception:
        """Return ``kek`` wrapped, which the region has opened once, or why there is no such copy.

        ``on_event`` hears of the calls in place of the usual listener.
        """
        blob = self._ask(WRAP, lambda: _require_blob(self._key.wrap(kek)), on_event)
        return blob if isinstance(blob, Exception) else self._proven(blob, kek, on_event)

    def unwrap(self, entry: RegionKek, on_event: Listener | None = None) -> bytes | Exception:
        """Return the KEK, or why it can't be unwrapped.

        The stored name of the master key is not looked at: whoever writes to the key table could name their own.
        """
        return self._ask(UNWRAP, lambda: _require_kek(self._key.unwrap(entry.encrypted_kek)), on_event)

    def find_problem(self) -> str | Exception:
        """Return why the master key can't wrap, ``""`` if it can, or why it could not be asked."""
        return self._ask(LOOK, self._key.find_problem)

    def timed_out(self, cause: Exception) -> bool:
        """Tell whether an exception that this region has returned means that it did not answer in time."""
        return self._explain(cause).is_timeout

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

    def _proven(self, blob: bytes, kek: bytes, on_event: Listener | None = None) -> RegionKek | Exception:
        """Return a copy of ``kek`` that this region opens, or why it isn't one.

        A copy that was never opened may turn out to be none when it is the last one left.
        """
        entry = RegionKek(self.name, self._key.name, blob)
        found = self.unwrap(entry, on_event)
        if isinstance(found, Exception):
            if self.timed_out(found):
                return found
            return DecryptionError(f"it does not open what it has just wrapped: {type(found).__name__}: {found}")
        if not compare_digest(found, kek):
            return DecryptionError("it opens what it has just wrapped to another data key")
        return entry

    def _ask(self, operation: str, call: Callable[[], T], on_event: Listener | None = None) -> T | Exception:
        """Ask the master key. What fails at once is tried again after a pause, what timed out is not."""
        until = self._clock() + self._deadline
        for attempt in range(1, self._max_attempts + 1):
            try:
                with self._timed(operation, on_event or self._notify):
                    answer = self._deadlines.within(max(until - self._clock(), 0.0), call)
            except Exception as exc:
                if attempt < self._max_attempts and self._has_paused(exc, attempt, until):
                    continue
                self._health.failed(self.name)
                return self._redacted(exc)
            self._health.succeeded(self.name)
            return answer
        raise AssertionError("unreachable")

    def _has_paused(self, error: Exception, attempt: int, until: float) -> bool:
        """Wait a moment, if the error may pass and the moment before the deadline; return False if not."""
        pause = PAUSE * 2 ** (attempt - 1) * self._random()
        if not self._explain(error).is_passing or self._clock() + pause >= until:
            return False
        self._sleep(pause)
        return True

    @contextmanager
    def _timed(self, operation: str, notify: Listener) -> Iterator[None]:
        started, error = self._clock(), None
        try:
            yield
        except Exception as exc:
            error = self._explain(exc).code
            raise
        finally:
            notify(KMSCalled(self.name, operation, self._clock() - started, error))

    def _explain(self, error: Exception) -> Failure:
        if isinstance(error, DeadlineError):
            return Failure(type(error).__name__, is_timeout=True)
        return self._key.explain(error)

    def _redacted(self, error: Exception) -> Exception:
        return error.with_traceback(None) if isinstance(error, DeadlineError) else self._key.redact(error)


def _require_kek(kek: object) -> bytes:
    """Return the KEK of an answer, which a broken provider may have left out or cut off."""
    if not isinstance(kek, bytes) or len(kek) != KEY_LENGTH:
        raise DecryptionError(f"its answer holds no data key of {KEY_LENGTH} bytes")
    return kek


def _require_blob(blob: object) -> bytes:
    """Return the wrapped KEK of an answer, of a length that a record may hold and that is read again."""
    if not isinstance(blob, bytes) or not blob:
        raise DecryptionError("its answer holds no ciphertext")
    if len(blob) > MAX_CIPHERTEXT_LENGTH:
        raise DecryptionError(
            f"its answer holds a ciphertext of {len(blob)} bytes, and records hold up to {MAX_CIPHERTEXT_LENGTH}"
        )
    return blob
