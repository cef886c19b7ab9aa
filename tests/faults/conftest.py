"""Three real regions behind proxies that can break."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.proxy import Proxies
from tests.moto_servers import MotoRegion, moto_region


@pytest.fixture(scope="session")
def frankfurt() -> Iterator[MotoRegion]:
    with moto_region("eu-central-1") as server:
        yield server


@pytest.fixture
def proxies(west: MotoRegion, east: MotoRegion, frankfurt: MotoRegion) -> Iterator[Proxies]:
    proxies = Proxies([west, east, frankfurt])
    yield proxies
    proxies.close()
