"""Metrics through OpenTelemetry's API. Needs ``django-asherah[otel]``; nothing else in this package imports it.

===================================== ========= ====== ==============================================================
metric                                kind      unit   attributes
===================================== ========= ====== ==============================================================
``django_asherah.kms.duration``       histogram s      ``cloud.region``, ``operation``, ``outcome``, ``error.type``
``django_asherah.operations``         counter   1      ``operation`` (encrypt, decrypt), ``outcome``, ``error.type``
``django_asherah.key_cache.lookups``  counter   1      ``level`` (system, intermediate), ``outcome`` (hit, miss)
===================================== ========= ====== ==============================================================

``outcome`` is ok or error; ``error.type``, only with an error, is an AWS error code or an exception's class. A hit is
an operation whose intermediate key was cached; a miss, a query of the metastore.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import metrics

from django_asherah import engine, signals
from django_asherah.envelope.aead import StreamCipher
from django_asherah.envelope.partition import KeyKind, kind_of
from django_asherah.envelope.session import Session

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: a KMS call takes about 10 ms in its own region, and at most the timeouts."""


class _Meters:
    """The instruments, and what feeds them."""

    def __init__(self, meter: metrics.Meter) -> None:
        self._kms = meter.create_histogram(
            "django_asherah.kms.duration",
            unit="s",
            description="Calls of a region's KMS.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._operations = meter.create_counter(
            "django_asherah.operations", unit="1", description="Values and files encrypted and decrypted."
        )
        self._lookups = meter.create_counter(
            "django_asherah.key_cache.lookups",
            unit="1",
            description="Keys found in the cache or looked up in the metastore.",
        )
        self._local = threading.local()

    def on_kms_called(self, *, region: str, operation: str, seconds: float, error: str | None, **kwargs: Any) -> None:
        """Record a KMS call."""
        self._kms.record(seconds, {"cloud.region": region, "operation": operation, **_outcome(error)})

    def on_cache_missed(self, *, key_id: str, **kwargs: Any) -> None:
        """Record a query of the metastore."""
        self._local.missed = True
        self._lookups.add(1, {"level": str(kind_of(key_id)), "outcome": "miss"})

    @contextmanager
    def operation(self, name: str) -> Iterator[None]:
        """Record the outcome of the block."""
        self._local.missed, error = False, None
        try:
            yield
        except Exception as exc:
            error = type(exc).__name__
            raise
        finally:
            self._operations.add(1, {"operation": name, **_outcome(error)})
            if error is None and not self._local.missed:
                self._lookups.add(1, {"level": KeyKind.INTERMEDIATE.value, "outcome": "hit"})


_meters: _Meters | None = None


def instrument(meter_provider: metrics.MeterProvider | None = None) -> None:
    """Start measuring. Call it once per process, after the fork; cached keys are dropped.

    Args:
        meter_provider: OpenTelemetry's; the global one if None.
    """
    global _meters
    uninstrument()
    _meters = _Meters(metrics.get_meter("django_asherah", meter_provider=meter_provider))
    signals.kms_called.connect(_meters.on_kms_called)
    signals.cache_missed.connect(_meters.on_cache_missed)
    engine.use_session_type(_observed_by(_meters))


def uninstrument() -> None:
    """Stop measuring."""
    global _meters
    if _meters is None:
        return
    signals.kms_called.disconnect(_meters.on_kms_called)
    signals.cache_missed.disconnect(_meters.on_cache_missed)
    engine.use_session_type(Session)
    _meters = None


def _observed_by(meters: _Meters) -> type[Session]:
    class ObservedSession(Session):
        __slots__ = ()

        def encrypt(self, *args: Any) -> str:
            with meters.operation("encrypt"):
                return super().encrypt(*args)

        def encrypt_compact(self, *args: Any) -> bytes:
            with meters.operation("encrypt"):
                return super().encrypt_compact(*args)

        def decrypt(self, *args: Any) -> bytes:
            with meters.operation("decrypt"):
                return super().decrypt(*args)

        def start_file(self) -> tuple[str, StreamCipher]:
            with meters.operation("encrypt"):
                return super().start_file()

        def open_file(self, record: str | bytes) -> StreamCipher:
            with meters.operation("decrypt"):
                return super().open_file(record)

    return ObservedSession


def _outcome(error: str | None) -> dict[str, str]:
    return {"outcome": "ok"} if error is None else {"outcome": "error", "error.type": error}
