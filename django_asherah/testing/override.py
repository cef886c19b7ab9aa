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
    """Put an engine of its own, with keys in memory, in the place of ``settings.ASHERAH``.

    A context manager, and a decorator of functions, methods, coroutines and Django's test case classes. Nothing of the
    project's own ``ASHERAH`` is kept, and no network and no table is touched. Each has keys of its own, which last as
    long as it does: what was encrypted outside can't be opened inside, nor the other way round.

    Args:
        kms: wraps the system keys in place of a static key, in regions that the test can switch off.
        settings: entries of ``ASHERAH`` to add or replace, for example ``PARTITION``, or ``METASTORE="database"`` where
            a test looks at the key table.
    """
    asherah: dict[str, Any] = {"SERVICE": "test", "PRODUCT": "test"}
    if kms is None:
        asherah |= {"KMS": "static", "KMS_OPTIONS": {"key": secrets.token_hex(32)}}
    else:
        asherah |= kms.settings
    if "METASTORE" not in settings:
        # One for good: an override within this one makes the engine anew, and "memory" would begin empty then.
        options = {"metastore": MemoryMetastore()}
        asherah |= {"METASTORE": f"{__name__}.metastore_of", "METASTORE_OPTIONS": options}
    return override_settings(ASHERAH=asherah | settings)


def metastore_of(settings: Settings) -> Metastore:
    """Return the metastore that :func:`override_asherah` made."""
    metastore: Metastore = settings.metastore_options["metastore"]
    return metastore
