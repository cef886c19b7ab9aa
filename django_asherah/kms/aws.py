"""AWS KMS in several regions: any one of them is enough to decrypt.

Source: ``go/appencryption/plugins/aws-v2/kms`` of godaddy/asherah and the AWS KMS API reference. Unlike there, a region
that fails is never dropped silently, and an error carries every region's cause.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hmac import compare_digest
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ConnectTimeoutError, ReadTimeoutError

from django_asherah.envelope.aead import KEY_LENGTH, Cipher, wipe
from django_asherah.envelope.interfaces import Event, KMSCalled, Listener, RegionFailed, ignore_events
from django_asherah.exceptions import DecryptionError, KMSError
from django_asherah.kms.health import LastAnswer, RegionHealth
from django_asherah.kms.kek import RegionKek, WrappedSystemKey, decode_wrapped, encode_wrapped
from django_asherah.kms.quiet import no_bodies, safe

T = TypeVar("T")

logger = logging.getLogger("django_asherah.kms")

_THROTTLED = frozenset({"ThrottlingException", "LimitExceededException", "RequestLimitExceeded"})
_TIMEOUTS = (ConnectTimeoutError, ReadTimeoutError)
_instances: weakref.WeakSet[AwsKMS] = weakref.WeakSet()


class AwsKMS:
    """Wraps system keys under one master key a region. Thread-safe; a forked child makes clients of its own.

    Credentials come from boto3's own chain, or from the session given, and from nowhere else.

    Args:
        regions: maps each region to the ARN of its KMS key.
        preferred_region: asked first.
        connect_timeout, read_timeout: seconds; each region may take them once, never twice.
        max_attempts: how often a region is asked that answers at once that it can't answer now.
        endpoint_urls: maps regions to URLs to use instead of AWS's own.
        session: a ``boto3.Session``, or a function without arguments that returns one.
        on_event: is told of every ``RegionFailed``.
        clock: seconds from any fixed point.
    """

    def __init__(
        self,
        regions: Mapping[str, str],
        preferred_region: str,
        *,
        connect_timeout: float = 2.0,
        read_timeout: float = 3.0,
        max_attempts: int = 2,
        endpoint_urls: Mapping[str, str] | None = None,
        session: Any = None,
        on_event: Listener = ignore_events,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        others = (region for region in regions if region != preferred_region)
        self.master_keys = {region: regions[region] for region in (preferred_region, *others)}
        self._config = Config(
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            # botocore would try a region again after a timeout, when another could answer meanwhile.
            retries={"mode": "standard", "total_max_attempts": 1},
        )
        self._max_attempts = max_attempts
        self._endpoint_urls = dict(endpoint_urls or {})
        self._session = session
        self._notify = on_event
        self._clock = clock
        self._forget_connections()
        _instances.add(self)

    def _forget_connections(self) -> None:
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._health = RegionHealth(self._clock)

    def encrypt_key(self, key: bytes | bytearray) -> bytes:
        """Wrap a 32-byte system key under the master key of every region that answers.

        Raises:
            KMSError: no region answered; ``failures`` has each one's cause.
        """
        return encode_wrapped(self._wrap(key))

    def decrypt_key(self, wrapped: bytes) -> bytearray:
        """Unwrap a system key in the first region that can: preferred first, those that failed lately last.

        Raises:
            KMSError: no region could; ``failures`` has each one's cause.
        """
        return self._unwrap(decode_wrapped(wrapped), self._health.order(self.master_keys))[1]

    def decrypt_key_in(self, region: str, wrapped: bytes) -> bytearray:
        """Unwrap a system key in ``region`` alone.

        Raises:
            KMSError: that region can't.
        """
        return self._unwrap(decode_wrapped(wrapped), [region])[1]

    def describe(self, wrapped: bytes) -> list[tuple[str, str]]:
        """Return the (region, ARN) pairs that hold a wrapped system key's KEK. Asks no KMS.

        Raises:
            InvalidRecordError: the AWS KMS did not make it.
        """
        return [(kek.region, kek.arn) for kek in decode_wrapped(wrapped).kms_keks]

    def failing_regions(self) -> frozenset[str]:
        """Return the regions whose last answer to this process was a failure. Asks no KMS."""
        return self._health.failing()

    def last_answers(self) -> dict[str, LastAnswer]:
        """Return how each region's last answer to this process was, if it was asked. Asks no KMS."""
        return self._health.last_answers()

    def check_region(self, region: str) -> None:
        """Ask whether the master key of ``region`` is enabled and of the right kind.

        Raises:
            KMSError: it isn't, or the region does not answer.
        """
        try:
            key = self._call(region, "DescribeKey", _key_metadata, KeyId=self.master_keys[region])
        except Exception as exc:
            cause = safe(exc)
            raise self._region_error(region, "could not be asked", cause) from cause
        for name, wanted in (
            ("KeyState", "Enabled"),
            ("KeyUsage", "ENCRYPT_DECRYPT"),
            ("KeySpec", "SYMMETRIC_DEFAULT"),
        ):
            if key.get(name) != wanted:
                raise self._region_error(region, f"has {name} {key.get(name)!r} instead of {wanted!r}", None)

    def check_wrap(self, region: str) -> None:
        """Try whether ``region`` can wrap a key now, with a random one that is thrown away.

        Raises:
            KMSError: it can't.
        """
        try:
            self._call(region, "Encrypt", _ciphertext, KeyId=self.master_keys[region], Plaintext=os.urandom(KEY_LENGTH))
        except Exception as exc:
            cause = safe(exc)
            raise self._region_error(region, "can't wrap a key", cause) from cause

    def rewrap(self, wrapped: bytes, *, old_master_keys: Iterable[str] = (), allow_missing: bool = False) -> bytes:
        """Wrap the same system key for exactly the configured regions; what already is right stays as it is.

        Every KEK of the result was decrypted in its own region alone and opens the system key.

        Args:
            wrapped: what :meth:`encrypt_key` returned.
            old_master_keys: ARNs that are no longer configured, but may be asked to unwrap this once.
            allow_missing: go on when a region does not answer. A KEK that it already has is kept as it is.

        Raises:
            KMSError: no region unwraps it, or a configured region can't wrap it.
        """
        current = decode_wrapped(wrapped)
        held = {entry.region: entry for entry in current.kms_keks if self.master_keys.get(entry.region) == entry.arn}
        good, added, failures = self._wrap_again(current, held, old_master_keys)
        if failures and not allow_missing:
            raise KMSError(f"not every region could wrap the system key: {_list(failures)}", failures)
        if len(failures) == len(self.master_keys):
            raise KMSError(f"no configured region could wrap the system key: {_list(failures)}", failures)
        added = [entry for entry in added if entry.region not in failures]
        kept = [held[region] for region in failures if region in held]
        new = {entry.region: entry for entry in (*good, *added, *kept)}
        keks = [new[region] for region in self.master_keys if region in new]
        if _same(keks, current.kms_keks):
            return wrapped
        return encode_wrapped(WrappedSystemKey(current.encrypted_key, keks))

    # No method that holds a KEK raises: whoever shows the frames of an error would show it.

    def _wrap(self, key: bytes | bytearray) -> WrappedSystemKey:
        first, kek, failures = self._generate_data_key()
        lost = {region: cause for region, cause in failures.items() if isinstance(cause, _TIMEOUTS)}
        added, failed = self._wrap_in(kek, [region for region in self.master_keys if region not in {first.region, *lost}])
        for region, cause in (lost | failed).items():
            self._report(region, "Encrypt", cause, "the new system key can't be opened there until it is re-wrapped")
        return WrappedSystemKey(Cipher(kek).seal(key), [first, *added])

    def _wrap_again(
        self, current: WrappedSystemKey, held: Mapping[str, RegionKek], old_master_keys: Iterable[str]
    ) -> tuple[list[RegionKek], list[RegionKek], dict[str, Exception]]:
        """Return the KEKs of ``held`` that are right, new ones for the other regions, and what failed there."""
        kek = self._recover_kek(current, old_master_keys)
        good = [entry for entry in held.values() if self._decrypts(entry, kek)]
        added, failures = self._wrap_in(kek, [region for region in self.master_keys if region not in {e.region for e in good}])
        for entry in added:
            if not self._decrypts(entry, kek):
                failures[entry.region] = DecryptionError("its own KMS does not decrypt what it has just encrypted")
        return good, added, failures

    def _generate_data_key(self) -> tuple[RegionKek, bytes, dict[str, Exception]]:
        """Return the first region's KEK, wrapped and in clear, and what went wrong in the regions before it."""
        failures: dict[str, Exception] = {}
        for region in self._health.order(self.master_keys):
            arn = self.master_keys[region]
            try:
                blob, kek = self._call(
                    region,
                    "GenerateDataKey",
                    lambda answer: (_ciphertext(answer), _data_key(answer)),
                    KeyId=arn,
                    KeySpec="AES_256",
                )
                return RegionKek(region, arn, blob), kek, failures
            except Exception as exc:
                failures[region] = safe(exc)
                self._report(region, "GenerateDataKey", failures[region], "the next region is asked")
        raise KMSError(f"no region could make a data key: {_list(failures)}", failures)

    def _wrap_in(self, kek: bytes, regions: list[str]) -> tuple[list[RegionKek], dict[str, Exception]]:
        """Wrap ``kek`` in every one of ``regions`` at the same time."""
        if not regions:
            return [], {}
        with ThreadPoolExecutor(len(regions), thread_name_prefix="asherah-kms") as pool:
            # Told here and not in the pool, for this thread may hold a key's lock that whoever listens asks for.
            calls: list[Event] = []
            results = list(pool.map(lambda region: self._encrypt_kek(region, kek, calls.append), regions))
        for call in calls:
            self._notify(call)
        keks = [result for result in results if isinstance(result, RegionKek)]
        failures = {
            region: result for region, result in zip(regions, results, strict=True) if isinstance(result, Exception)
        }
        return keks, failures

    def _encrypt_kek(self, region: str, kek: bytes, notify: Listener) -> RegionKek | Exception:
        arn = self.master_keys[region]
        try:
            return RegionKek(region, arn, self._call(region, "Encrypt", _ciphertext, notify, KeyId=arn, Plaintext=kek))
        except Exception as exc:
            return safe(exc)

    def _unwrap(self, wrapped: WrappedSystemKey, regions: Iterable[str]) -> tuple[bytes, bytearray]:
        """Return the KEK and the system key from the first of ``regions`` that can open them."""
        failures: dict[str, Exception] = {}
        for region in regions:
            for entry in wrapped.kms_keks:
                if entry.region == region:
                    opened = self._open_with(entry, self.master_keys[region], wrapped.encrypted_key)
                    if not isinstance(opened, Exception):
                        return opened
                    failures[region] = opened
                    self._health.failed(region)  # It may have answered, but with another KEK.
                    self._report(region, "Decrypt", opened, "the next region is asked")
            failures.setdefault(region, KMSError("the system key was not wrapped for this region"))
        raise KMSError(f"no region could unwrap the system key: {_list(failures)}", failures)

    def _open_with(self, entry: RegionKek, arn: str, sealed: bytes) -> tuple[bytes, bytearray] | Exception:
        try:
            kek = self._decrypt_kek(entry.region, arn, entry.encrypted_kek)
            return kek, Cipher(kek).open_key(sealed)
        except Exception as exc:
            return safe(exc)

    def _recover_kek(self, wrapped: WrappedSystemKey, old_master_keys: Iterable[str]) -> bytes:
        """Return the KEK, from a configured region or else from one of ``old_master_keys``."""
        try:
            kek, key = self._unwrap(wrapped, self._health.order(self.master_keys))
        except KMSError as exc:
            kek, key = self._unwrap_with(wrapped, frozenset(old_master_keys), exc)
        wipe(key)
        return kek

    def _unwrap_with(self, wrapped: WrappedSystemKey, arns: frozenset[str], error: KMSError) -> tuple[bytes, bytearray]:
        """Unwrap with the KEK of one of ``arns``; raise ``error``, with their causes too, if none does."""
        for entry in wrapped.kms_keks:
            # Only ARNs that the operator names: whoever can write to the key table could name one of his own.
            if entry.arn in arns:
                opened = self._open_with(entry, entry.arn, wrapped.encrypted_key)
                if not isinstance(opened, Exception):
                    return opened
                error.failures[entry.arn] = opened
        raise KMSError(f"no region could unwrap the system key: {_list(error.failures)}", error.failures)

    def _decrypts(self, entry: RegionKek, kek: bytes) -> bool:
        try:
            return compare_digest(self._decrypt_kek(entry.region, entry.arn, entry.encrypted_kek), kek)
        except Exception as exc:
            self._report(entry.region, "Decrypt", safe(exc), "its copy of the KEK is not proven")
            return False

    def _decrypt_kek(self, region: str, arn: str, blob: bytes) -> bytes:
        # The configured ARN, not the stored one: nobody who writes to the key table chooses the master key.
        return self._call(region, "Decrypt", _data_key, KeyId=arn, CiphertextBlob=blob)

    def _call(
        self, region: str, operation: str, read: Callable[[Any], T], notify: Listener | None = None, **parameters: Any
    ) -> T:
        """Call one KMS action and ``read`` its answer. What fails at once is tried again, what timed out is not."""
        method = getattr(self._client(region), _METHODS[operation])
        for attempt in range(1, self._max_attempts + 1):
            try:
                with self._timed(region, operation, notify or self._notify), no_bodies():
                    result = read(method(**parameters))
            except Exception as exc:
                if attempt < self._max_attempts and _is_passing(exc):
                    continue
                self._health.failed(region)
                raise
            self._health.succeeded(region)
            return result
        raise AssertionError("unreachable")

    @contextmanager
    def _timed(self, region: str, operation: str, notify: Listener) -> Iterator[None]:
        started, error = self._clock(), None
        try:
            yield
        except Exception as exc:
            error = _code(exc) or type(exc).__name__
            raise
        finally:
            notify(KMSCalled(region, operation, self._clock() - started, error))

    def _client(self, region: str) -> Any:
        client = self._clients.get(region)
        if client is None:
            with self._lock:
                client = self._clients.get(region) or self._make_client(region)
                self._clients[region] = client
        return client

    def _make_client(self, region: str) -> Any:
        session = self._session() if callable(self._session) else self._session or boto3.Session()
        return session.client(
            "kms", region_name=region, endpoint_url=self._endpoint_urls.get(region), config=self._config
        )

    def _report(self, region: str, operation: str, cause: Exception, consequence: str) -> None:
        arn = self.master_keys.get(region, "")
        logger.warning("KMS %s failed in region %s (%s), %s: %s", operation, region, arn, consequence, _text(cause))
        self._notify(RegionFailed(region, arn, operation, cause))

    def _region_error(self, region: str, what: str, cause: Exception | None) -> KMSError:
        text = f": {_text(cause)}" if cause else ""
        error = KMSError(f"the KMS key {self.master_keys[region]} of region {region} {what}{text}")
        error.failures[region] = cause or error
        return error

    def __repr__(self) -> str:
        return f"<AwsKMS {', '.join(self.master_keys)}>"


_METHODS = {
    "Decrypt": "decrypt",
    "DescribeKey": "describe_key",
    "Encrypt": "encrypt",
    "GenerateDataKey": "generate_data_key",
}


def _data_key(response: Any) -> bytes:
    """Return the 32-byte KEK of a response, which a broken endpoint may have left out."""
    kek = response.get("Plaintext")
    if not isinstance(kek, bytes) or len(kek) != KEY_LENGTH:
        raise DecryptionError(f"its answer holds no data key of {KEY_LENGTH} bytes")
    return kek


def _ciphertext(response: Any) -> bytes:
    """Return the wrapped KEK of a response."""
    blob = response.get("CiphertextBlob")
    if not isinstance(blob, bytes) or not blob:
        raise DecryptionError("its answer holds no ciphertext")
    return blob


def _key_metadata(response: Any) -> Any:
    return response["KeyMetadata"]


def _is_passing(exc: Exception) -> bool:
    if isinstance(exc, ClientError):
        status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or _code(exc) in _THROTTLED
    return isinstance(exc, ConnectionClosedError)


def _code(exc: Exception) -> str | None:
    """Return AWS's code of an error that it answered with."""
    code: str | None = exc.response.get("Error", {}).get("Code") if isinstance(exc, ClientError) else None
    return code


def _same(some: list[RegionKek], others: list[RegionKek]) -> bool:
    return sorted(some, key=lambda kek: kek.region) == sorted(others, key=lambda kek: kek.region)


def _text(cause: Exception) -> str:
    return f"{type(cause).__name__}: {cause}"


def _list(failures: Mapping[str, Exception]) -> str:
    return "; ".join(f"{region}: {_text(cause)}" for region, cause in failures.items())


def _forget_connections_in_child() -> None:
    # Sockets shared with the parent would mix up the answers, and a lock held at the fork is never released.
    for instance in list(_instances):
        instance._forget_connections()


os.register_at_fork(after_in_child=_forget_connections_in_child)
