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
from django_asherah.conf import Settings
from django_asherah.kms.static import StaticKMS
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


class PretendRegions:
    """A KMS of three regions that seals with a static key, and whose regions can be switched off."""

    def __init__(self, settings: Settings) -> None:
        from django_asherah.kms.kek import RegionKek, WrappedSystemKey, decode_wrapped, encode_wrapped

        self._kek, self._wrapped = RegionKek, WrappedSystemKey
        self._encode, self._decode = encode_wrapped, decode_wrapped
        self._static = StaticKMS(b"k" * 32)
        self.master_keys = dict(settings.kms_options["arns"])
        self.down: set[str] = settings.kms_options.get("down", set())

    def encrypt_key(self, key: bytes | bytearray) -> bytes:
        return self._wrap(self._static.encrypt_key(key), [region for region in self.master_keys if region not in self.down])

    def decrypt_key(self, wrapped: bytes) -> bytearray:
        from django_asherah.exceptions import KMSError

        failures: dict[str, Exception] = {}
        for region in self.master_keys:
            try:
                return self.decrypt_key_in(region, wrapped)
            except KMSError as exc:
                failures[region] = exc
        raise KMSError("no region", failures)

    def decrypt_key_in(self, region: str, wrapped: bytes) -> bytearray:
        from django_asherah.exceptions import KMSError

        held = {kek.region: kek.arn for kek in self._decode(wrapped).kms_keks}
        if region in self.down or held.get(region) != self.master_keys[region]:
            raise KMSError(f"{region} can't")
        return self._static.decrypt_key(self._decode(wrapped).encrypted_key)

    def check_region(self, region: str) -> None:
        self._require(region)

    def check_wrap(self, region: str) -> None:
        self._require(region)

    def rewrap(self, wrapped: bytes, *, old_master_keys: Any = (), allow_missing: bool = False) -> bytes:
        self.decrypt_key(wrapped)
        for region in self.master_keys:
            if not allow_missing:
                self._require(region)
        new = self._wrap(self._decode(wrapped).encrypted_key, [r for r in self.master_keys if r not in self.down])
        return wrapped if self._decode(new) == self._decode(wrapped) else new

    def _wrap(self, sealed: bytes, regions: list[str]) -> bytes:
        keks = [self._kek(region, self.master_keys[region], b"kek") for region in regions]
        return self._encode(self._wrapped(sealed, keks))

    def _require(self, region: str) -> None:
        from django_asherah.exceptions import KMSError

        if region in self.down:
            raise KMSError(f"{region} is down")


def make_pretend_regions(settings: Settings) -> PretendRegions:
    """Stand in for the KMS, by its dotted path."""
    return PretendRegions(settings)


ARNS = {"one": "arn-1", "two": "arn-2"}


@pytest.fixture
def regional(settings: Any) -> Callable[..., None]:
    """Configure the pretended KMS: ``regional(arns={...}, down={...})``."""

    def configure(arns: dict[str, str] = ARNS, down: frozenset[str] = frozenset()) -> None:
        settings.ASHERAH = {
            **BASE,
            "KMS": "tests.lifecycle.conftest.make_pretend_regions",
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
