"""The health function: what a process remembers, and what it finds out when it may ask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import boto3
import pytest
from msgspec.structs import replace
from pytest_django import Settings as DjangoSettings

from django_asherah import engine, health
from django_asherah.envelope.records import EnvelopeKeyRecord
from django_asherah.exceptions import KMSError, MetastoreError
from django_asherah.kms.static import StaticKMS
from django_asherah.metastores.memory import MemoryMetastore
from tests.databases import as_asherah
from tests.moto_servers import ACCESS, MotoRegion, moto_region, refused_url

WEST, EAST = "us-west-2", "us-east-1"
METASTORE = MemoryMetastore()


def same_metastore(settings: object) -> MemoryMetastore:
    """Outlives the factory, as a database does."""
    return METASTORE


class BrokenMetastore(MemoryMetastore):
    """Never answers."""

    def __init__(self, settings: object) -> None:
        super().__init__()

    def load_latest(self, key_id: str) -> None:
        raise MetastoreError("the key table is out of reach")

    def versions(self, key_id: str) -> NoReturn:
        raise MetastoreError("the key table is out of reach")


def own_kms(settings: object) -> StaticKMS:
    """A KMS of the user's own, without regions."""
    return StaticKMS(b"another master key of 32 bytes !")


@pytest.fixture(scope="module")
def regions() -> Iterator[dict[str, MotoRegion]]:
    with moto_region(WEST) as west, moto_region(EAST) as east:
        yield {WEST: west, EAST: east}


def aws(regions: dict[str, MotoRegion], **down: str) -> dict[str, Any]:
    """Return settings for both regions; those in ``down`` are elsewhere."""
    urls = {region: server.url for region, server in regions.items()}
    return as_asherah(
        METASTORE="tests.test_health.same_metastore",
        KMS="aws",
        REGIONS={region: server.arn for region, server in regions.items()},
        PREFERRED_REGION=WEST,
        KMS_OPTIONS={"endpoint_urls": urls | down, "session": boto3.Session(**ACCESS)},
    )


@pytest.fixture(autouse=True)
def _empty(settings: DjangoSettings) -> None:
    METASTORE.records.clear()
    settings.ASHERAH = as_asherah(METASTORE="tests.test_health.same_metastore")


def test_a_fresh_process_is_healthy_and_asks_nobody(settings: DjangoSettings) -> None:
    settings.ASHERAH = as_asherah(METASTORE="tests.test_health.BrokenMetastore")
    assert health.check() == health.Health()
    assert health.check().ok


def test_the_cached_keys_are_counted() -> None:
    engine.get_session().encrypt(b"x")
    engine.get_session("another").encrypt(b"x")
    assert health.check() == health.Health(cached_keys=3)


def test_wrong_settings_are_a_problem_and_no_exception(settings: DjangoSettings) -> None:
    settings.ASHERAH = {"SERVICE": "x"}
    found = health.check()
    assert not found.ok
    assert found.problems[0].startswith("ImproperlyConfigured: ASHERAH['PRODUCT'] is not set.")
    assert health.check(deep=True) == found


def test_deep_reads_the_key_table(settings: DjangoSettings) -> None:
    settings.ASHERAH = as_asherah(METASTORE="tests.test_health.BrokenMetastore")
    assert health.check(deep=True).problems == ("MetastoreError: the key table is out of reach",)


def test_deep_opens_the_newest_system_key(settings: DjangoSettings) -> None:
    engine.get_session().encrypt(b"x")
    assert health.check(deep=True).ok
    settings.ASHERAH = as_asherah(METASTORE="tests.test_health.same_metastore", KMS_OPTIONS={"key": "00" * 32})
    found = health.check(deep=True)
    assert len(found.problems) == 1
    assert found.problems[0].startswith("KMSError: the static master key does not open it")


@pytest.mark.parametrize("kms", ["static", "tests.regional.PretendedAws", "tests.regional.OwnKMS"])
def test_a_system_key_that_nobody_can_open_is_a_warning_while_writes_go_by_the_one_before(
    settings: DjangoSettings, kms: str
) -> None:
    own = {} if kms == "static" else {"KMS": kms, "KMS_OPTIONS": {"arns": {"one": "arn-1", "two": "arn-2"}}}
    settings.ASHERAH = as_asherah(METASTORE="tests.test_health.same_metastore", **own)
    engine.get_session().encrypt(b"x")
    (key,) = (meta for meta in METASTORE.records if meta.key_id.startswith("_SK_"))
    METASTORE.store(key.key_id, EnvelopeKeyRecord(created=key.created + 1, key=bytes(60)))
    engine.reset()

    engine.get_session("another").encrypt(b"x")
    found = health.check(deep=True)
    assert (found.ok, found.failing_regions, len(found.warnings)) == (True, {}, 1)
    assert found.warnings[0].startswith(
        f"system key {key.key_id} created {key.created + 1} can't be opened, so new writes go by the one created "
        f"{key.created}: "
    )
    METASTORE.records[key] = replace(METASTORE.records[key], revoked=True)
    assert not health.check(deep=True).ok


@pytest.mark.slow
def test_deep_asks_each_region_alone_and_one_is_enough(
    settings: DjangoSettings, regions: dict[str, MotoRegion]
) -> None:
    settings.ASHERAH = aws(regions)
    engine.get_session().encrypt(b"x")
    assert health.check(deep=True) == health.Health(cached_keys=2)

    settings.ASHERAH = aws(regions, **{EAST: refused_url()})
    found = health.check(deep=True)
    assert found.ok
    assert list(found.failing_regions) == [EAST]
    assert "EndpointConnectionError" in found.failing_regions[EAST]


@pytest.mark.slow
def test_deep_asks_for_the_master_keys_where_there_is_no_key_yet(
    settings: DjangoSettings, regions: dict[str, MotoRegion]
) -> None:
    settings.ASHERAH = aws(regions, **{WEST: refused_url()})
    found = health.check(deep=True)
    assert found.ok
    assert list(found.failing_regions) == [WEST]
    assert "could not be asked" in found.failing_regions[WEST]
    assert METASTORE.records == {}


@pytest.mark.slow
def test_no_region_left_is_a_problem_for_a_process_without_keys_only(
    settings: DjangoSettings, regions: dict[str, MotoRegion]
) -> None:
    settings.ASHERAH = aws(regions, **{WEST: refused_url(), EAST: refused_url()})
    with pytest.raises(KMSError):
        engine.get_session().encrypt(b"x")

    found = health.check()
    assert found.problems == ("no region's KMS answers: us-west-2, us-east-1",)
    assert found.failing_regions == dict.fromkeys([EAST, WEST], "its last answer to this process was a failure")


@pytest.mark.slow
def test_a_process_with_cached_keys_works_on_without_any_region(
    settings: DjangoSettings, regions: dict[str, MotoRegion]
) -> None:
    settings.ASHERAH = aws(regions)
    settings.ASHERAH["KMS_OPTIONS"]["read_timeout"] = 0.3
    engine.get_session().encrypt(b"x")
    try:
        for server in regions.values():
            server.pause()
        assert health.check(deep=True).problems == ("no region's KMS answers: us-west-2, us-east-1",)
    finally:
        for server in regions.values():
            server.resume()

    found = health.check()
    assert found.ok
    assert list(found.failing_regions) == [EAST, WEST]


def test_a_kms_without_regions_is_asked_as_a_whole(settings: DjangoSettings) -> None:
    settings.ASHERAH = as_asherah(METASTORE="memory", KMS="tests.test_health.own_kms", KMS_OPTIONS={})
    engine.get_session().encrypt(b"x")
    assert health.check(deep=True) == health.Health(cached_keys=2)
