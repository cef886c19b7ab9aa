"""Keys that a host with a wrong clock has made: they take no new writes, and a rotation returns to now."""

from __future__ import annotations

import time
from typing import Any

import pytest

from django_asherah import engine, health, lifecycle
from django_asherah.envelope.policy import DAY
from django_asherah.envelope.records import KeyMeta, decode_row
from django_asherah.envelope.session import SessionFactory
from django_asherah.lifecycle.keys import KeyState, list_keys
from tests.databases import as_asherah
from tests.lifecycle.conftest import Run

pytestmark = pytest.mark.django_db(transaction=True)

SK_ID, IK_ID = "_SK_suite_tests", "_IK_default_suite_tests"
FOUR_YEARS = 4 * 365 * DAY


@pytest.fixture(params=["database", "memory"])
def future(settings: Any, request: pytest.FixtureRequest) -> str:
    """A key table in which a host four years ahead has made the only keys; returns a record that it wrote."""
    settings.ASHERAH = as_asherah(METASTORE=request.param)
    running = engine.get_factory()
    ahead = SessionFactory(
        "suite", "tests", running.metastore, running.kms, running.policy, clock=lambda: time.time() + FOUR_YEARS
    )
    return ahead.get_session("default").encrypt(b"from the future")


def used_key() -> KeyMeta:
    return decode_row(engine.get_session().encrypt(b"x")).key.parent_key_meta


def test_a_rotation_makes_keys_of_the_present_and_comes_to_rest(future: str) -> None:
    report = lifecycle.rotate()
    made = report.system_key
    assert isinstance(made, KeyMeta)
    assert made.created <= time.time()
    assert used_key().created <= time.time()
    assert engine.get_session().decrypt(future) == b"from the future"


def test_twice_as_well(future: str) -> None:
    lifecycle.rotate()
    first = used_key()
    report = lifecycle.rotate()
    assert [key.key_id for key in report.intermediate_keys if isinstance(key, KeyMeta)] == [IK_ID]
    assert used_key().created > first.created
    assert used_key().created < time.time() + 120


def test_what_is_due_is_judged_by_the_keys_of_the_present(future: str, run: Run) -> None:
    used_key()
    assert run("asherah_rotate", "--expired")["summary"]["intermediate_keys"] == 0
    lifecycle.revoke(IK_ID, used_key().created)
    assert run("asherah_rotate", "--expired")["summary"]["intermediate_keys"] == 1
    assert run("asherah_rotate", "--resume")["summary"]["intermediate_keys"] == 0


def test_partitions_that_are_named_are_rotated_too(future: str) -> None:
    used_key()
    lifecycle.rotate(partitions=["default"])
    assert used_key().created < time.time() + 120


def test_status_and_verify_report_them_and_health_warns(future: str, run: Run) -> None:
    used_key()
    for command in ("asherah_status", "asherah_verify"):
        document = run(command)
        assert document["code"] == 1
        assert {problem["at"].partition(" ")[0] for problem in document["problems"]} == {SK_ID, IK_ID}
        assert all("ahead of this host's clock" in problem["reason"] for problem in document["problems"])
    states = {(key.meta.key_id, key.is_from_future): key.state for key in list_keys()}
    assert states == {
        (SK_ID, True): KeyState.SUPERSEDED,
        (SK_ID, False): KeyState.CURRENT,
        (IK_ID, True): KeyState.SUPERSEDED,
        (IK_ID, False): KeyState.CURRENT,
    }
    found = health.check(deep=True)
    assert found.ok
    assert [SK_ID in warning and "ahead of this host's clock" in warning for warning in found.warnings] == [True]


def test_the_latest_that_is_revoked_is_the_one_in_use(future: str) -> None:
    for key_id in (IK_ID, SK_ID):
        latest = used_key()
        report = lifecycle.revoke(key_id)
        assert report.meta.created <= time.time()
        assert used_key() != latest


def test_if_all_are_from_the_future_the_latest_of_them_is_revoked(future: str) -> None:
    assert lifecycle.revoke(IK_ID).meta == decode_row(future).key.parent_key_meta
