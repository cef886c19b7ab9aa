"""Fixtures for pytest: ``pytest_plugins = ["django_asherah.testing.fixtures"]`` in the root ``conftest.py``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_asherah.testing.kms import FakeKMS
from django_asherah.testing.override import override_asherah


@pytest.fixture
def asherah() -> Iterator[None]:
    """An engine with a static KMS and keys in memory, for the length of a test."""
    with override_asherah():
        yield


@pytest.fixture
def fake_kms() -> Iterator[FakeKMS]:
    """An engine over two KMS regions that the test can switch off, with keys in memory."""
    kms = FakeKMS()
    with override_asherah(kms):
        yield kms
