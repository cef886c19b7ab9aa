"""``ASHERAH["DISABLE_CORE_DUMPS"]``: a process that crashes with keys in its memory leaves no file of it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from django_asherah import engine
from tests.databases import ROOT, as_asherah, run_django

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")]

CRASH = """
import ctypes, os, resource, sys
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
import django
django.setup()
from django.conf import settings
from django_asherah import engine
settings.ASHERAH |= {"METASTORE": "memory", "DISABLE_CORE_DUMPS": sys.argv[1] == "on"}
engine.get_session().encrypt(b"x")
def state():
    limits = dict((line[:26].strip(), line[26:].split()) for line in open("/proc/self/limits"))
    return limits["Max core file size"][:2], ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
print(state(), flush=True)
child = os.fork()
if child == 0:
    print(state(), flush=True)
    os.chdir(sys.argv[2])
    os.abort()
print(os.WCOREDUMP(os.waitpid(child, 0)[1]), flush=True)
"""


def crash(setting: str, folder: Path) -> list[str]:
    """Return the limit and the dumpable mark of a process and of its fork, and whether the fork's crash was dumped."""
    done = subprocess.run(
        [sys.executable, "-c", CRASH, setting, str(folder)],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": "sqlite://:memory:", "DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.splitlines()


def test_with_the_setting_neither_the_process_nor_its_forks_are_dumped(tmp_path: Path) -> None:
    assert crash("on", tmp_path) == ["(['0', '0'], 0)", "(['0', '0'], 0)", "False"]
    assert list(tmp_path.iterdir()) == []


def test_without_it_nothing_is_changed(tmp_path: Path) -> None:
    process, fork, dumped = crash("off", tmp_path)
    assert process == fork
    assert process.endswith("1)")
    may_dump = resource.getrlimit(resource.RLIMIT_CORE)[1] != 0
    assert dumped == str(may_dump), "the crash of the test above would have been dumped"


@pytest.mark.parametrize("value", [1, "yes", None])
def test_it_is_true_or_false(settings: Settings, value: object) -> None:
    settings.ASHERAH = as_asherah(DISABLE_CORE_DUMPS=value)
    with pytest.raises(ImproperlyConfigured, match=r"ASHERAH\['DISABLE_CORE_DUMPS'\].*Give True or False"):
        engine.get_session()


REFUSED = """
import ctypes, errno, resource, sys, types
from django.core.exceptions import ImproperlyConfigured
from django_asherah.coredumps import disable_core_dumps
%s
try:
    disable_core_dumps()
except ImproperlyConfigured as exc:
    print(exc)
else:
    print(resource.getrlimit(resource.RLIMIT_CORE))
"""
PRCTL_FAILS = """
def prctl(*arguments):
    ctypes.set_errno(errno.EPERM)
    return -1
ctypes.CDLL = lambda name, use_errno: types.SimpleNamespace(prctl=prctl)
"""


@pytest.mark.parametrize(
    ("system", "said"),
    [
        ("sys.modules['resource'] = None", "this system has no limit for core dumps"),
        (PRCTL_FAILS, "prctl failed: Operation not permitted"),
    ],
    ids=["without limits", "refuses the mark"],
)
def test_a_system_that_cant_is_an_error(system: str, said: str) -> None:
    message = f"ASHERAH['DISABLE_CORE_DUMPS'] is True, but {said}. Remove the setting."
    assert run_django(REFUSED % system, "sqlite://:memory:") == message


def test_a_system_other_than_linux_has_the_limit_alone() -> None:
    elsewhere = "sys.platform = 'darwin'; ctypes.CDLL = None"
    assert run_django(REFUSED % elsewhere, "sqlite://:memory:") == "(0, 0)"
