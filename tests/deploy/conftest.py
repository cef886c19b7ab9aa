"""Keys that are there already, and a server's environment."""

from __future__ import annotations

import pytest
from pytest_django import Settings

from django_asherah import engine
from tests.databases import ROOT, VENDOR, as_asherah
from tests.deploy.servers import finding_the_project
from tests.faults.conftest import frankfurt, proxies
from tests.faults.processes import CREDENTIALS, environment, on_aws
from tests.faults.proxy import Proxies
from tests.faults.test_servers import broker

HERE = ROOT / "tests" / "deploy"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run every shape on one server, PostgreSQL: what differs by database, others test."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.django_db(transaction=True))
            item.add_marker(pytest.mark.skipif(VENDOR != "postgresql", reason="PostgreSQL serves every shape"))


__all__ = ["broker", "frankfurt", "proxies"]


@pytest.fixture
def env(proxies: Proxies, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a process that finds the keys of ``default`` in the table; no region was asked yet."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    settings.ASHERAH = as_asherah(**on_aws(proxies))
    engine.get_factory().current_keys(["default"])
    proxies.taken_counts()
    return finding_the_project(environment("default", on_aws(proxies)))
