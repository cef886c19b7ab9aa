"""An engine whose clock and KMS the lifecycle tests hold in their hands."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import boto3
import pytest
from django.core.management import call_command

from django_asherah import engine
from tests.moto_servers import ACCESS, MotoRegion, moto_region

BASE = {"SERVICE": "suite", "PRODUCT": "tests"}


class Run:
    """Runs a command and keeps what it said."""

    def __call__(self, *words: str, **options: Any) -> dict[str, Any]:
        """Return the JSON document; ``code`` is the exit code."""
        out, code = self.text(*words, "--json", **options)
        document: dict[str, Any] = json.loads(out)
        return {"code": code, **document}

    def text(self, *words: str, **options: Any) -> tuple[str, int]:
        """Return what people see, and the exit code."""
        out, err = StringIO(), StringIO()
        try:
            call_command(*words, stdout=out, stderr=err, **options)
        except SystemExit as exc:
            return out.getvalue() + err.getvalue(), int(exc.code or 0)
        return out.getvalue() + err.getvalue(), 0


@pytest.fixture
def run() -> Run:
    return Run()


ARNS = {"one": "arn-1", "two": "arn-2"}


@pytest.fixture(params=["PretendedAws", "OwnKMS"])
def regional(settings: Any, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Configure a pretended KMS of regions, of AWS's format or another: ``regional(arns={...}, down={...})``."""

    def configure(arns: dict[str, str] = ARNS, down: frozenset[str] = frozenset()) -> None:
        settings.ASHERAH = {
            **BASE,
            "KMS": f"tests.regional.{request.param}",
            "KMS_OPTIONS": {"arns": arns, "down": set(down)},
        }

    return configure


@pytest.fixture(autouse=True)
def _fresh_engine() -> Iterator[None]:
    engine.reset()
    yield
    engine.reset()


@pytest.fixture(scope="session")
def steady() -> Iterator[MotoRegion]:
    """A region that every test finds alive."""
    with moto_region("us-west-2") as server:
        yield server


@pytest.fixture
def doomed() -> Iterator[MotoRegion]:
    """A region that the test may kill."""
    with moto_region("eu-west-1") as server:
        yield server


@pytest.fixture
def moto(steady: MotoRegion, settings: Any, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Configure AWS KMS over moto servers, ``steady`` and ``doomed`` if none are named; ``arns`` says other ARNs."""

    def configure(regions: list[MotoRegion] | None = None, arns: dict[str, str] | None = None) -> None:
        chosen = [steady, request.getfixturevalue("doomed")] if regions is None else regions
        settings.ASHERAH = {
            **BASE,
            "REGIONS": {region.region: region.arn for region in chosen} | (arns or {}),
            "PREFERRED_REGION": chosen[0].region,
            "KMS_OPTIONS": {
                "endpoint_urls": {region.region: region.url for region in chosen},
                "session": boto3.Session(**ACCESS),
            },
        }

    return configure
