"""Settings under which Django's suites run: their own for SQLite, with encrypted fields in their models.

Keys are kept in memory: where suites count queries, or may not ask a database, rows of keys would be asked for, too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from test_sqlite import *  # type: ignore[import-not-found]  # noqa: F403 - Django's own, in its folder of tests

from scripts.suites_swap import swap_fields

TEST_RUNNER = "scripts.suites_runner.RecordingRunner"
ASHERAH = {
    "SERVICE": "suite",
    "PRODUCT": "django",
    "KMS": "static",
    "KMS_OPTIONS": {"key": "5a" * 32},
    "METASTORE": "memory",
}

# runtests.py, which is the program, puts its own list of apps over that of the settings.
sys.modules["__main__"].ALWAYS_INSTALLED_APPS.append("django_asherah")
swap_fields(Path.cwd(), set(os.environ["DJANGO_SUITES_KINDS"].split()))

# What a suite's admin lists by, filters by and searches in is refused where its tests use it.
SILENCED_SYSTEM_CHECKS = [*(f"asherah.E{number}" for number in (105, 111, 112, 113, 115)), "asherah.W115"]
