"""Settings for the length of a test."""

from __future__ import annotations

import secrets
from typing import Any

from django.test import override_settings

from django_asherah.conf import Settings
from django_asherah.envelope.interfaces import Metastore
from django_asherah.metastores.memory import MemoryMetastore
from django_asherah.testing.kms import FakeKMS


def override_asherah(kms: FakeKMS | None = None, **settings: Any) -> override_settings:
    """Replace ``settings.ASHERAH`` with an engine that keeps its keys in memory.

    A context manager, and a decorator for functions, methods, coroutines and Django's test case classes. Nothing of the
    project's own ``ASHERAH`` is kept, and no network or table is touched. Each override has its own keys, which last as
    long as it does: what was encrypted outside can't be opened inside, nor the other way round.

    Args:
        kms: wraps the system keys instead of a static key, in regions that the test can switch off.
        settings: entries of ``ASHERAH`` to add or replace, for example ``PARTITION``, or ``METASTORE="database"`` where
            a test looks at the key table.
    """
    asherah: dict[str, Any] = {"SERVICE": "test", "PRODUCT": "test"}
    if kms is not None:
        asherah |= kms.settings
    elif "KMS_OPTIONS" not in settings:
        asherah |= {"KMS": "static", "KMS_OPTIONS": {"key": secrets.token_hex(32)}}
        if "METASTORE" in settings:  # It may hold what other master keys have left there.
            asherah["KEY_SUFFIX"] = secrets.token_hex(8)
    if "METASTORE" not in settings:
        # The same object throughout: a nested override makes a new engine, whose "memory" would begin empty.
        asherah |= {"METASTORE": f"{__name__}.metastore_of", "METASTORE_OPTIONS": {"metastore": MemoryMetastore()}}
    return override_settings(ASHERAH=asherah | settings)


def metastore_of(settings: Settings) -> Metastore:
    """Return the metastore that :func:`override_asherah` made."""
    metastore: Metastore = settings.metastore_options["metastore"]
    return metastore
