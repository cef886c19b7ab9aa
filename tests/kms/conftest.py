"""A KMS over two real regions."""

from __future__ import annotations

from typing import Any

import boto3
import pytest

from django_asherah.envelope.interfaces import Event
from django_asherah.kms.aws import AwsKMS
from tests.kms.modules import Modules
from tests.moto_servers import ACCESS, MotoRegion


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Kit:
    """Makes AwsKMS objects over the two regions and collects what they report."""

    def __init__(self, west: MotoRegion, east: MotoRegion) -> None:
        self.servers = {west.region: west, east.region: east}
        self.events: list[Event] = []
        self.clock = Clock()

    def kms(self, urls: dict[str, str] | None = None, **options: Any) -> AwsKMS:
        """Return a KMS of both regions; ``urls`` puts something else in a region's place."""
        arns = {region: server.arn for region, server in self.servers.items()}
        endpoint_urls = {region: server.url for region, server in self.servers.items()} | (urls or {})
        defaults: dict[str, Any] = {
            "regions": arns,
            "preferred_region": "us-west-2",
            "endpoint_urls": endpoint_urls,
            "session": boto3.Session(**ACCESS),
            "on_event": self.events.append,
            "clock": self.clock,
        }
        return AwsKMS(**(defaults | options))


@pytest.fixture
def kit(west: MotoRegion, east: MotoRegion) -> Kit:
    return Kit(west, east)


@pytest.fixture
def modules() -> Modules:
    return Modules()
