"""Settings of the servers under test: those of the fault tests, and the fragments of docs/deploying that are named."""

from __future__ import annotations

import runpy
from pathlib import Path

from tests.faults.settings import *  # noqa: F403
from tests.faults.settings import ASHERAH, env

DEPLOYING = Path(__file__).resolve().parents[2] / "docs" / "deploying"

for fragment in env.list("DEPLOY_SETTINGS", default=[]):
    shown = runpy.run_path(str(DEPLOYING / fragment))
    shown["ASHERAH"] = {**ASHERAH, **shown.get("ASHERAH", {})}
    globals().update({name: value for name, value in shown.items() if name.isupper()})

ROOT_URLCONF = env.str("DEPLOY_URLS", default="tests.faults.site")
ALLOWED_HOSTS = ["127.0.0.1", ".clinic.test"]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"django.request": {"handlers": ["console"], "level": "ERROR"}},
}
