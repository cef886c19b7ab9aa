"""Seams that count who passes, and kill the process at the N-th passage as ``kill -9`` does.

They are put in by public means: dotted paths for the KMS and the metastore, an ``execute_wrapper`` on every connection.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from typing import Any

from django.db.backends.signals import connection_created

from django_asherah.conf import Settings
from django_asherah.metastores.database import DatabaseMetastore
from tests.regional import PretendedAws


class Seams:
    """Counts the passages of one process."""

    def __init__(self) -> None:
        self.kill_at = 0
        self._passed = 0

    def open(self, kill_at: int) -> None:
        """Count from here on; 0 kills nobody."""
        self.kill_at, self._passed = kill_at, 0

    def step(self) -> None:
        """Pass one seam."""
        self._passed += 1
        if self._passed == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


seams = Seams()


def stepping(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``method`` with one seam before it and one after it."""

    @functools.wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        seams.step()
        result = method(*args, **kwargs)
        seams.step()
        return result

    return wrapped


class SteppingKMS(PretendedAws):
    """Two regions."""

    encrypt_key = stepping(PretendedAws.encrypt_key)
    decrypt_key = stepping(PretendedAws.decrypt_key)
    check_wrap = stepping(PretendedAws.check_wrap)
    rewrap = stepping(PretendedAws.rewrap)


class SteppingMetastore(DatabaseMetastore):
    """The key table."""

    load = stepping(DatabaseMetastore.load)
    load_latest = stepping(DatabaseMetastore.load_latest)
    store = stepping(DatabaseMetastore.store)


def make_kms(settings: Settings) -> SteppingKMS:
    """Stand in for the KMS, by its dotted path."""
    return SteppingKMS(settings)


def make_metastore(settings: Settings) -> SteppingMetastore:
    """Stand in for the metastore, by its dotted path."""
    return SteppingMetastore(settings.database)


def watch_statements() -> None:
    """Put a seam before and after every SQL statement of every connection, our private ones included."""

    def watch(connection: Any, **kwargs: Any) -> None:
        if _step_around not in connection.execute_wrappers:  # This may be a connection that was renewed.
            connection.execute_wrappers.append(_step_around)

    connection_created.connect(watch, weak=False)


def _step_around(execute: Callable[..., Any], *arguments: Any) -> Any:
    return stepping(execute)(*arguments)
