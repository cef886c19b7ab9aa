"""The releases that the page names: those tested, those that no longer import, and those in their place."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version

import django
import pytest

from tests.interop.peers import python_with
from tests.other_libraries import page
from tests.other_libraries.conftest import KEYS, NUMBERS, WITH_DATABASE, Move, only, store
from tests.other_libraries.page import LIBRARIES, Library

pytestmark = pytest.mark.slow

ORIGINALS = [
    *(original.replace(" ", "==") for original, _, _ in page.REPLACED),
    "cryptography==50.0.2",
    "django-appconf==1.2.0",
]
IN_PLACE = [library for library in LIBRARIES if library.package in [later for _, _, later in page.REPLACED]]


def test_the_releases_tested_are_those_that_the_page_names(library: Library) -> None:
    assert version(library.package) == library.release


def test_each_library_has_a_section_of_its_own() -> None:
    assert [library.package for library in LIBRARIES] == page.SECTIONS


def test_all_are_here_but_the_one_that_the_newest_django_excludes() -> None:
    """The lock has the newest Django for every Python from 3.12 on."""
    not_here = [library.package for library in LIBRARIES if not library.is_here]
    assert not_here == ["django-tink-fields"] * (sys.version_info >= (3, 12))
    assert [library.package for library in LIBRARIES if library.tested_on == "Django 5.2"] == ["django-tink-fields"]


@only(IN_PLACE)
def test_the_originals_do_not_import(library: Library) -> None:
    python = python_with(f"django=={django.__version__}", *ORIGINALS)
    code = f"from django.conf import settings; settings.configure(); {library.imports}"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ImportError: cannot import name" in done.stderr


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Django 3.2, on which both originals run, ends at Python 3.11")
@WITH_DATABASE
@only(IN_PLACE)
def test_what_the_originals_wrote_is_copied(make_move: Callable[..., Move], library: Library) -> None:
    python = python_with("django==3.2.25", *ORIGINALS)
    stored = store(python, KEYS, NUMBERS, library)[library.package]
    move = make_move()
    pks = move.put(*stored)
    move.add_column()
    assert move.by(canary={pks[0]: NUMBERS[0]}).copy() == {}
    assert move.values("ssn_asherah") == NUMBERS
