"""The tutorial, as a newcomer would go through it: every command and every line of its shell, in order, on SQLite."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.databases import ROOT

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "tutorial" / "encrypted-patients.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(console|pycon)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)

# Python's own reader of such transcripts, after django.setup(). "..." stands for anything.
SHELL = """
import doctest, sys
import django
django.setup()
text = sys.stdin.read()
test = doctest.DocTestParser().get_doctest(text, {}, "tutorial", "tutorial", 0)
runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
sys.exit(runner.run(test).failed)
"""


def shells() -> list[tuple[str, str]]:
    """Return the blocks, with those of one session in the shell joined: no command is between them."""
    joined: list[tuple[str, str]] = []
    for language, text in BLOCKS:
        if joined and language == "pycon" == joined[-1][0]:
            joined[-1] = (language, joined[-1][1] + text)
        else:
            joined.append((language, text))
    return joined


def run(arguments: list[str], database: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ASHERAH_", "DJANGO_"))}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT / "testproject",
        env=environment | {"DATABASE_URL": f"sqlite:///{database}", "DJANGO_SETTINGS_MODULE": "config.settings"},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def matches(shown: str, printed: str) -> bool:
    """Tell whether ``printed`` is what the page shows; ``…`` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in shown.strip().split("…"))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


def test_the_tutorial_shows_what_happens(tmp_path: Path) -> None:
    database = tmp_path / "clinic.sqlite3"
    languages = []
    for language, text in shells():
        languages.append(language)
        if language == "pycon":
            done = run(["-c", SHELL], database, stdin=text)
            assert done.returncode == 0, done.stdout + done.stderr
        else:
            prompt, _, shown = text.partition("\n")
            assert prompt.startswith("$ python manage.py ")
            done = run(prompt.split()[2:], database)
            assert done.returncode == 0, done.stderr
            assert matches(shown, done.stdout), done.stdout
    assert languages == ["console", "pycon", *["console"] * 4, "pycon"]


def test_the_model_on_the_page_is_the_clinics() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    lines = iter((ROOT / "testproject" / "clinic" / "models.py").read_text(encoding="utf-8").splitlines())
    assert [line for line in code.splitlines() if line not in lines] == []
