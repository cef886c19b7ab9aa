"""Processes that the fault tests start, over the database under test and the regions behind the proxies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from tests.databases import ROOT, url_of
from tests.faults.proxy import Proxies

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}


def on_aws(proxies: Proxies, **changes: Any) -> dict[str, Any]:
    """Return what to change in ``settings.ASHERAH`` to have the AWS KMS behind the proxies."""
    # Long enough for a machine on which everybody competes for two cores.
    options = {"endpoint_urls": proxies.urls, "read_timeout": 30, "connect_timeout": 30}
    return {"KMS": "aws", "KMS_OPTIONS": options, **proxies.options, **changes}


def environment(alias: str, asherah: dict[str, Any], **variables: str) -> dict[str, str]:
    """Return the environment of a process whose default database is the one that ``alias`` is."""
    return {
        **os.environ,
        **CREDENTIALS,
        "DATABASE_URL": url_of(alias),
        "DJANGO_SETTINGS_MODULE": "tests.faults.settings",
        "ASHERAH_FAULTS": json.dumps(asherah),
        **variables,
    }


def run_module(name: str, *arguments: str, env: dict[str, str], timeout: float = 300) -> str:
    """Run ``python -m tests.faults.NAME`` to its end; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.faults.{name}", *arguments],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
