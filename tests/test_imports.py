"""What needs no KMS, no key and no credentials must not touch them. In processes of their own, without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.databases import ROOT

pytestmark = pytest.mark.slow

SET_UP = """
import sys, socket
def refuse(*arguments): raise AssertionError("it opens a connection")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
import django
from django.conf import settings
ASHERAH = {
    "SERVICE": "suite",
    "PRODUCT": "tests",
    "REGIONS": {"us-west-2": "arn:aws:kms:us-west-2:111122223333:key/west",
                "us-east-1": "arn:aws:kms:us-east-1:111122223333:key/east"},
    "PREFERRED_REGION": "us-west-2",
}
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.staticfiles",
                    "django_asherah", "tests.testapp"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}},
    STATIC_URL="static/",
    STATIC_ROOT="static",
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    **({} if "without" in sys.argv else {"ASHERAH": ASHERAH}),
)
django.setup()
from django.core.management import call_command
"""
CHECK = """
loaded = {"boto3", "botocore", "moto", "opentelemetry", "reversion", "auditlog"} & sys.modules.keys()
assert not loaded, loaded
"""


def run(code: str, directory: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DJANGO_"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SET_UP + code + CHECK, *arguments],
        cwd=directory,
        env={**environment, "PYTHONPATH": str(ROOT), "HOME": str(directory)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "module",
    ["fields", "models", "engine", "checks", "signals", "exceptions", "conf", "kms", "metastores.database", "apps"],
)
def test_importing_loads_no_boto3_and_opens_no_key(tmp_path: Path, module: str) -> None:
    run(
        f"import django_asherah.{module}\nfrom django_asherah import engine\nassert engine._running is None",
        tmp_path,
    )


@pytest.mark.parametrize("arguments", [[], ["without"]], ids=["with settings", "without settings"])
def test_migrations_are_made_and_run(tmp_path: Path, arguments: list[str]) -> None:
    out = run(
        """
call_command("makemigrations", "testapp", dry_run=True, verbosity=3)
call_command("migrate", run_syncdb=True, verbosity=0)
from django_asherah.models import EncryptionKey
assert EncryptionKey.objects.count() == 0
""",
        tmp_path,
        *arguments,
    )

    assert "EncryptedTextField" in out
    assert "arn:" not in out


def test_checks_run(tmp_path: Path) -> None:
    run('call_command("migrate", verbosity=0)\ncall_command("check", databases=["default"])', tmp_path)


def test_static_files_are_collected(tmp_path: Path) -> None:
    run('call_command("collectstatic", interactive=False, verbosity=0)', tmp_path)


def test_queries_that_read_no_value_need_no_key(tmp_path: Path) -> None:
    run(
        """
call_command("migrate", run_syncdb=True, verbosity=0)
from tests.testapp.models import Tenancy
Tenancy.objects.create(plain="no secret")
assert Tenancy.objects.filter(left=None).count() == 1
assert Tenancy.objects.get().left is None
""",
        tmp_path,
        "without",
    )
