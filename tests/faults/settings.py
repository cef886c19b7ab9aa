"""Settings of the processes that the fault tests start. ``ASHERAH_FAULTS`` is JSON that changes ``ASHERAH``."""

from __future__ import annotations

import json
from datetime import timedelta

from tests.settings import *  # noqa: F403
from tests.settings import ASHERAH, env

CHANGES = json.loads(env.str("ASHERAH_FAULTS", default="{}"))
if "REVOKE_CHECK_INTERVAL" in CHANGES:
    CHANGES["REVOKE_CHECK_INTERVAL"] = timedelta(seconds=CHANGES["REVOKE_CHECK_INTERVAL"])
ASHERAH = {**ASHERAH, **CHANGES}
ROOT_URLCONF = "tests.faults.site"
ALLOWED_HOSTS = ["127.0.0.1"]
MIDDLEWARE: list[str] = []
