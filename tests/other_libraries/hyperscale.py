"""hyperscale-crypto on Pythons before 3.14: as released, but for the syntax that they don't know."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.interop.peers import ENVS, locked

RELEASE = "hyperscale-crypto==0.3.0"

_NEWER = {
    r"^( *except )(\w+(?:, \w+)+):$": r"\1(\2):",  # Python 3.14: no parentheses.
    r"^type (\w+) =": r"\1 =",  # Python 3.12: a type alias.
    r"\[ST, GT\]": "",  # Python 3.12: type parameters, which only type checkers see there.
}


def install() -> Path:
    """Return a folder with the package alone, for ``sys.path``; it is made now if it isn't there.

    Its dependencies are those of the tests.
    """
    name = RELEASE.replace("==", "-")
    place, done = ENVS / name, ENVS / f"{name}.done"
    with locked():
        if not done.exists():
            options = ["--quiet", "--no-deps", "--python-version", "3.14", "--target", str(place)]
            subprocess.run([sys.executable, "-m", "uv", "pip", "install", *options, RELEASE], check=True)
            for file in place.rglob("*.py"):
                file.write_text(_rewritten(file.read_text(encoding="utf-8")), encoding="utf-8")
            done.touch()
    return place


def _rewritten(code: str) -> str:
    for newer, older in _NEWER.items():
        code = re.sub(newer, older, code, flags=re.MULTILINE)
    return code
