"""The composition root: ``settings.ASHERAH`` becomes one ``SessionFactory`` per process."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from asgiref.sync import sync_to_async
from django.core.signals import request_started, setting_changed
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.signals import post_migrate

from django_asherah import audit, signals
from django_asherah.conf import Settings, get_settings
from django_asherah.coredumps import disable_core_dumps
from django_asherah.envelope.checks import Threads, runs_loop
from django_asherah.envelope.clocks import Clocks, Standstill
from django_asherah.envelope.events import EventQueue
from django_asherah.envelope.forksafe import PerProcess
from django_asherah.envelope.interfaces import (
    CacheMissed,
    Clock,
    Event,
    KeyCreated,
    KeyPassedOver,
    KMSCalled,
    Metastore,
    RecordRefused,
    RegionFailed,
    RenewalFailed,
    StaleKeyKept,
)
from django_asherah.envelope.keys import CryptoKey
from django_asherah.envelope.policy import DAY, CryptoPolicy
from django_asherah.envelope.session import Session, SessionFactory
from django_asherah.exceptions import EncryptionError
from django_asherah.guard import allowed_partitions, outside_guard
from django_asherah.metastores.database import DatabaseMetastore
from django_asherah.refusals import Refusals


@dataclass(frozen=True, slots=True)
class _Running:
    """What the settings have become.

    Attributes:
        partition: the one of ``ASHERAH["PARTITION"]``.
        sessions: the factory's own: to look there first costs less than to call it.
        keys_alias: the database that holds the key table, if one does.
        standstill: notices that the timer, by which keys are checked, has stood still.
    """

    factory: SessionFactory
    partition: str
    sessions: dict[str, Session]
    keys_alias: str | None
    standstill: Standstill


_running: _Running | None = None
keys_alias: str | None = None
"""The database for which :func:`require_committed_key` never refuses: comparing costs less than calling it."""

_own: ContextVar[_Running | None] = ContextVar("django_asherah.engine.own", default=None)
"""What stands in for the running engine within :func:`own_keys`."""

_session_type: type[Session] = Session
_clock: Clock = time.time
_start_lock = PerProcess(threading.Lock)


def get_session(partition: str | None = None) -> Session:
    """Return the session of a partition; of ``ASHERAH["PARTITION"]`` if None.

    ``encrypt(bytes) -> str`` gives a data row record's JSON, ``decrypt(str | bytes) -> bytes`` opens one.

    Raises:
        ImproperlyConfigured: the settings are wrong.
        EncryptionError: the partition can't be part of a key id.
        PartitionMismatchError: a ``partition_guard`` is active that does not allow it.
    """
    running = _own.get() or _running or _start()
    if partition is None:
        partition = running.partition
    allowed = allowed_partitions.get()
    if allowed is not None and partition not in allowed:
        raise outside_guard(partition, allowed)
    try:
        return running.sessions[partition]
    except KeyError:
        return running.factory.get_session(partition)


def get_factory() -> SessionFactory:
    """Return this process's session factory, made now if there is none.

    Raises:
        ImproperlyConfigured: the settings are wrong.
    """
    return (_own.get() or _running or _start()).factory


@contextmanager
def own_keys() -> Iterator[SessionFactory]:
    """Let everything in this block read and write with opened keys of its own, of which there are none yet.

    Whoever looks, proves or rewrites must not rely on what this process has opened long ago; and what they load, and
    what they fail to load, must not touch the keys by which the process serves its requests.

    Raises:
        ImproperlyConfigured: the settings are wrong.
    """
    running = _running or _start()
    factory = running.factory.with_own_keys()
    token = _own.set(replace(running, factory=factory, sessions=factory.sessions))
    try:
        yield factory
    finally:
        _own.reset(token)


def require_checks() -> None:
    """Let this process look at the row of each of its opened keys before it uses it again."""
    if _running is not None:
        _running.factory.require_checks()


@contextmanager
def key_rows_changing() -> Iterator[None]:
    """Let this process look at the row of each of its opened keys again after the block, however it ends."""
    try:
        yield
    finally:
        require_checks()


def get_keys_database() -> str | None:
    """Return the alias of the database that holds the key table; None if no Django database does.

    Raises:
        ImproperlyConfigured: the settings are wrong.
    """
    return (_running or _start()).keys_alias


def reset() -> None:
    """Drop the factory and every opened key; the next use reads the settings and the keys again."""
    global _running, keys_alias
    with _start_lock.get():
        keys_alias = None
        stopped, _running = _running, None
    if stopped is not None:
        stopped.factory.clear()  # Somebody may hold a session of it.


def use_session_type(session_type: type[Session]) -> None:
    """Make sessions of this type from now on: one that observes its calls, or ``Session`` itself, which costs nothing.

    Every opened key is dropped.
    """
    global _session_type
    _session_type = session_type
    reset()


def use_clock(clock: Clock) -> None:
    """Let keys be made, expire and be checked by another clock from now on, as in a test of clocks that go wrong.

    Every opened key is dropped.
    """
    global _clock
    _clock = clock
    reset()


def require_committed_key(key: CryptoKey, alias: str) -> None:
    """Refuse to let a record that goes to database ``alias`` outlive ``key``, which sealed it.

    A key made inside a transaction on SQLite goes when that transaction rolls back, and with it what the same
    transaction wrote. Data in another database would stay, permanently unreadable.

    Raises:
        EncryptionError: the key's row is not committed, and the data is in another database.
    """
    keys_alias = (_running or _start()).keys_alias
    if keys_alias is not None and keys_alias != alias and not key.is_committed:
        raise EncryptionError(
            f"key {key.meta} is not committed in database {keys_alias!r} yet, and what is written to "
            f"{alias!r} could outlive it: leave the atomic block of {keys_alias!r} first, or encrypt "
            "once before it (in tests, ASHERAH['METASTORE'] may be 'memory')"
        )


def _start() -> _Running:
    global _running, keys_alias
    with _start_lock.get():
        if _running is None:
            settings = get_settings()
            if settings.disable_core_dumps:
                disable_core_dumps()
            factory = _make_factory(settings)
            keys_database = _find_keys_database(settings, factory.metastore)
            standstill = Standstill(Clocks(_clock, time.monotonic))
            _running = _Running(factory, settings.partition, factory.sessions, keys_database, standstill)
            keys_alias = _running.keys_alias
        return _running


def _make_factory(settings: Settings) -> SessionFactory:
    events = EventQueue(partial(_record, Refusals()))
    life = settings.expire_key_after.total_seconds()
    policy = CryptoPolicy(
        expire_after=life,
        revoke_check_interval=settings.revoke_check_interval.total_seconds(),
        renew_ahead=min(life / 10, 7 * DAY),
        grace=min(life / 10, DAY),
    )
    return SessionFactory(
        settings.service,
        settings.product,
        settings.metastore_provider(settings, events),
        settings.kms_provider(settings, events),
        policy,
        key_suffix=settings.key_suffix,
        read_suffixes=settings.read_suffixes,
        cache_size=settings.key_cache_size,
        clock=_clock,
        on_event=events,
        session_type=_session_type,
        threads=Threads(_must_not_wait, _in_thread, _close_connections),
    )


def _must_not_wait() -> bool:
    """Tell whether Django refuses this thread its databases."""
    return runs_loop() and not os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")


def _in_thread(work: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
    """Call ``work`` where Django's own async methods do: its transaction, if any, is the one that they see."""
    return sync_to_async(work)(*arguments)


def _close_connections() -> None:
    for connection in connections.all(initialized_only=True):
        # SQLite's own close() leaves a database in memory open, to whoever collects the thread's garbage.
        BaseDatabaseWrapper.close(connection)


def _find_keys_database(settings: Settings, metastore: Metastore) -> str | None:
    if isinstance(metastore, DatabaseMetastore):
        return metastore.alias  # A function at a dotted path may return one, and has no entry that says so.
    return settings.metastore_provider.find_database(settings)


def _record(refusals: Refusals, event: Event) -> None:
    match event:
        case KeyCreated(meta):
            audit.record(signals.key_created, "created", key_id=meta.key_id, created=meta.created)
        case StaleKeyKept(meta, cause):
            named = {"key_id": meta.key_id, "created": meta.created, "cause": cause}
            audit.record(signals.stale_key_kept, "stale_key_kept", level=logging.WARNING, **named)
        case RenewalFailed(meta, until, cause):
            named = {"key_id": meta.key_id, "created": meta.created, "until": int(until), "cause": cause}
            audit.record(signals.renewal_failed, "renewal_failed", level=logging.WARNING, **named)
        case KeyPassedOver(key_id, reason):
            audit.record(
                signals.key_passed_over, "key_passed_over", level=logging.WARNING, key_id=key_id, reason=reason
            )
        case RegionFailed(region, master_key, operation, consequence, cause):
            named = {"region": region, "master_key": master_key, "operation": operation}
            named |= {"consequence": consequence, "cause": cause}
            audit.record(signals.region_failed, "region_failed", level=logging.WARNING, **named)
        case RecordRefused():
            refusals.tell(event)
        case KMSCalled(region, operation, seconds, error):
            signals.kms_called.send_robust(
                SessionFactory, region=region, operation=operation, seconds=seconds, error=error
            )
        case CacheMissed(key_id):
            signals.cache_missed.send_robust(SessionFactory, key_id=key_id)


def _reset_on_setting_changed(*, setting: str, **kwargs: Any) -> None:
    if setting == "ASHERAH":
        reset()


def _check_keys_after_migration(**kwargs: Any) -> None:
    # TransactionTestCase and the flush command empty the key table; cached keys would outlive their rows. Where these
    # still stand, as after any other migration, the keys serve on, be every KMS down.
    require_checks()


def _check_keys_after_standstill(**kwargs: Any) -> None:
    if _running is not None and _running.standstill.has_ended():
        require_checks()


request_started.connect(_check_keys_after_standstill, dispatch_uid="django_asherah.engine")
setting_changed.connect(_reset_on_setting_changed, dispatch_uid="django_asherah.engine")
post_migrate.connect(_check_keys_after_migration, dispatch_uid="django_asherah.engine")
