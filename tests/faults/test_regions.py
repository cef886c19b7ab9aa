"""Every way in which a region's KMS can fail, in one region, in all but one and in all three."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from pytest_django import Settings

from django_asherah import engine
from django_asherah.conf import Settings as AsherahSettings
from django_asherah.exceptions import KMSError
from django_asherah.kms.aws import AwsKMS
from django_asherah.lifecycle import rewrap, verify_data, verify_keys
from tests.databases import VENDOR
from tests.faults.proxy import DRIPPING, FAULTS, STALLED, Fault, Proxies
from tests.moto_servers import ACCESS
from tests.testapp.models import Note

pytestmark = [
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(VENDOR != "sqlite", reason="regions fail alike whatever the database"),
]

WEST, EAST, FRANKFURT = "us-west-2", "us-east-1", "eu-central-1"
SOME = {"the preferred region": [WEST], "all but one": [WEST, EAST]}
ALL = [WEST, EAST, FRANKFURT]

every_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)


@dataclass
class Clock:
    """A clock that stands until it is set."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def make_kms(settings: AsherahSettings) -> AwsKMS:
    """Stand in for the KMS by its dotted path: the AWS KMS whose clock the test holds."""
    return AwsKMS(
        settings.regions,
        settings.preferred_region,
        max_attempts=1,
        session=boto3.Session(**ACCESS),
        **settings.kms_options,
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def regions(request: pytest.FixtureRequest, settings: Settings, proxies: Proxies, clock: Clock) -> None:
    # Long enough for a busy machine's working regions, and short where it has to pass.
    callspec = getattr(request.node, "callspec", None)
    stalls = callspec is None or callspec.params["fault"] in (STALLED, DRIPPING)
    settings.ASHERAH = {
        "SERVICE": "suite",
        "PRODUCT": "tests",
        "KMS": "tests.faults.test_regions.make_kms",
        "KMS_OPTIONS": {"endpoint_urls": proxies.urls, "clock": clock, "read_timeout": 1.0 if stalls else 30.0},
        **proxies.options,
    }


def write(text: str) -> int:
    return int(Note.objects.create(body=text).pk)


def read(pk: int) -> str | None:
    return Note.objects.get(pk=pk).body


def forget() -> None:
    engine.get_factory().clear()


def rotate() -> None:
    """Make a new system key and a new intermediate key, as a process does that finds them expired."""
    factory = engine.get_factory()
    factory.system_keys.rotate(factory.system_key_id)
    factory.intermediate_keys.rotate("_IK_default_suite_tests")


@every_fault
@pytest.mark.parametrize("broken", SOME.values(), ids=SOME)
def test_reads_and_writes_go_on_while_any_region_works(
    proxies: Proxies, clock: Clock, fault: Fault, broken: list[str]
) -> None:
    before = write("written before")
    forget()

    with proxies.broken(broken, fault):
        assert read(before) == "written before"
        rotate()
        during = write("written meanwhile")
        forget()
        assert [read(before), read(during)] == ["written before", "written meanwhile"]

    clock.now += 60
    assert rewrap().failed == {}
    assert verify_keys().problems == []
    report = verify_data(["testapp.Note"])
    assert (report.columns["testapp.Note.body"], report.bad) == (2, [])


@every_fault
def test_with_every_region_gone_cached_keys_go_on_and_others_raise_each_regions_cause(
    proxies: Proxies, fault: Fault
) -> None:
    before = write("written before")

    with proxies.broken(ALL, fault):
        during = write("written meanwhile")
        assert [read(before), read(during)] == ["written before", "written meanwhile"]
        forget()
        for operation in (lambda: read(before), lambda: write("lost if it were written"), rotate):
            with pytest.raises(KMSError) as caught:
                operation()
            assert list(caught.value.failures) == ALL
            for region, cause in caught.value.failures.items():
                assert fault.cause in f"{type(cause).__name__}: {cause}"
                assert f"{region}: {type(cause).__name__}" in str(caught.value)

    assert [read(before), read(during)] == ["written before", "written meanwhile"]
    assert Note.objects.count() == 2


@every_fault
@pytest.mark.parametrize("broken", SOME.values(), ids=SOME)
def test_a_region_that_failed_is_asked_once_however_many_keys_are_read_and_again_after_a_minute(
    proxies: Proxies, clock: Clock, fault: Fault, broken: list[str]
) -> None:
    pks = [write("under the first key")]
    for _ in range(3):
        rotate()
        pks.append(write("under another"))
    working = next(region for region in ALL if region not in broken)

    def taken_by_cold_reads() -> dict[str, Any]:
        proxies.taken_counts()
        forget()
        for pk in pks:
            read(pk)
        return proxies.taken_counts()

    healthy = taken_by_cold_reads()
    with proxies.broken(broken, fault):
        first, second = taken_by_cold_reads(), taken_by_cold_reads()
        clock.now += 59
        third = taken_by_cold_reads()
        clock.now += 1
        probing = taken_by_cold_reads()

    assert healthy == {WEST: {"Decrypt": 4}}
    asked_once = {} if fault.refuses else {region: {"Decrypt": 1} for region in broken}
    assert first == probing == {working: {"Decrypt": 4}, **asked_once}
    assert second == third == {working: {"Decrypt": 4}}


def test_a_region_that_has_come_back_is_preferred_again_once_it_was_probed(proxies: Proxies, clock: Clock) -> None:
    pk = write("a text")
    forget()
    with proxies.broken([WEST], STALLED):
        read(pk)
    clock.now += 60
    proxies.taken_counts()

    for _ in range(3):
        forget()
        read(pk)

    assert proxies.taken_counts() == {WEST: {"Decrypt": 3}}


def test_a_new_key_that_missed_a_region_is_a_finding_until_it_is_rewrapped(proxies: Proxies) -> None:
    with proxies.broken([EAST], STALLED):
        write("a text")

    assert [reason for _, reason in verify_keys().problems] != []
    assert [meta.key_id for meta in rewrap().rewrapped] == ["_SK_suite_tests"]
    assert verify_keys().problems == []
