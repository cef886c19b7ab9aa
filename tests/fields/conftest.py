"""Two tenants, for the tests of rows that say their partition."""

from __future__ import annotations

import pytest

from tests.testapp.models import Clinic


@pytest.fixture
def north(db: None) -> Clinic:
    return Clinic.objects.create(name="north")


@pytest.fixture
def south(db: None) -> Clinic:
    return Clinic.objects.create(name="south")
