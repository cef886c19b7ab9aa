"""Several interpreters in one process, as mod_wsgi and uWSGI have them, and Apache with the page's configuration."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.databases import ROOT
from tests.deploy.servers import DEPLOYING, running
from tests.faults.proxy import Proxies
from tests.faults.test_servers import WEST, ask_many, wait_for
from tests.moto_servers import free_port

IN_TWO = """
import sys

if sys.version_info >= (3, 13):
    import _interpreters

    made = [_interpreters.create("legacy") for _ in range(2)]
else:
    import _xxsubinterpreters as _interpreters

    made = [_interpreters.create(**({} if sys.version_info < (3, 12) else {"isolated": False})) for _ in range(2)]
for one in made:
    try:
        failure = _interpreters.run_string(one, "from django_asherah.envelope import session; print('works')")
    except Exception as exc:
        failure = exc
    print(getattr(failure, "formatted", failure))
    sys.stdout.flush()
"""


def test_a_second_interpreter_of_a_process_is_told_what_to_do() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_TWO], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    works, no_failure, refusal = done.stdout.splitlines()
    assert (works, no_failure) == ("works", "None")
    assert "the package cryptography works in one interpreter of a process, and this is another" in refusal
    assert "WSGIApplicationGroup %{GLOBAL}" in refusal


APACHE = shutil.which("apache2", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
MODULES = Path("/usr/lib/apache2/modules")
LOADED = ("mpm_event", "authz_core", "wsgi")


def python_of_mod_wsgi() -> tuple[int, ...]:
    """Return the version of Python that Debian's mod_wsgi is for."""
    (library,) = [
        word
        for word in subprocess.run(
            ["ldd", MODULES / "mod_wsgi.so"], capture_output=True, text=True, check=True
        ).stdout.split()
        if word.startswith("libpython")
    ]
    return tuple(int(part) for part in library.removeprefix("libpython").split(".so")[0].split("."))


@pytest.fixture
def apache(tmp_path: Path) -> list[str]:
    """The command and the beginning of a configuration file, at its end."""
    if APACHE is None or not (MODULES / "mod_wsgi.so").exists():
        reason = "there is no Apache with mod_wsgi here (Debian's apache2-bin and libapache2-mod-wsgi-py3)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    if python_of_mod_wsgi() != sys.version_info[:2]:
        pytest.skip(f"this machine's mod_wsgi is for Python {python_of_mod_wsgi()}, and this is another")
    # It refuses to run applications as root: then it is another user in a namespace where root's files are that user's.
    as_user = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
    return [*as_user, APACHE, "-D", "FOREGROUND", "-f", str(tmp_path / "apache.conf")]


def test_apache_with_mod_wsgi(apache: list[str], env: dict[str, str], proxies: Proxies, tmp_path: Path) -> None:
    port = free_port()
    own = [f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in LOADED] + [
        f"ServerName 127.0.0.1\nListen 127.0.0.1:{port}\nPidFile {tmp_path}/pid\nErrorLog /dev/stderr",
        f"DefaultRuntimeDir {tmp_path}\nWSGISocketPrefix {tmp_path}/wsgi",
        f"Include {DEPLOYING}/mod_wsgi.conf",
    ]
    Path(apache[-1]).write_text("\n".join(own) + "\n")
    # Debian's Python, for which its mod_wsgi is, and what is installed for the Python of these tests.
    env |= {"CLINIC_VENV": "/usr", "CLINIC_PROJECT": str(ROOT / "tests" / "deploy")}
    env["PYTHONPATH"] += os.pathsep + sysconfig.get_path("platlib")
    with running(apache, env) as server:
        wait_for(port, server)
        workers = {answer["pid"] for answer in ask_many(port, "note?")}
    assert len(workers) <= 2
    assert proxies.taken_counts() == {WEST: {"Decrypt": len(workers)}}
