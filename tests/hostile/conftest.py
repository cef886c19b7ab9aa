"""Fixtures of the tests with hostile input."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from pytest_django import Settings

from fuzz import world


@pytest.fixture
def vectors_keys(settings: Settings) -> Iterator[None]:
    """Give the fields the keys of the published vectors, and keep thousands of expected warnings out of the log."""
    settings.ASHERAH = world.ASHERAH
    logging.disable()
    yield
    logging.disable(logging.NOTSET)
