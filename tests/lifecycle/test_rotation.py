"""Rotations in company: other processes, other services, regions that fail, and interruptions."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any

import pytest
from pytest_django import Settings

from django_asherah import engine, lifecycle, signals
from django_asherah.envelope.policy import CryptoPolicy
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, decode_row
from django_asherah.envelope.session import SessionFactory
from django_asherah.exceptions import KMSError
from django_asherah.lifecycle import KeyInfo
from django_asherah.metastores.database import DatabaseMetastore
from django_asherah.models import EncryptionKey
from tests.databases import as_asherah, run_django, url_of
from tests.lifecycle.conftest import Run
from tests.lifecycle.processes import peers

pytestmark = pytest.mark.django_db(transaction=True)

SK_ID = "_SK_suite_tests"
DAY = 24 * 3600
PARTITIONS = [f"p{number}" for number in range(6)]


def newest_keys() -> dict[str, KeyInfo]:
    newest: dict[str, KeyInfo] = {}
    for key in lifecycle.list_keys():
        newest.setdefault(key.meta.key_id, key)
    return newest


def require_one_hierarchy() -> None:
    """Every partition's newest key stands under the newest system key, and all keys open."""
    newest = newest_keys()
    system = newest.pop(SK_ID)
    assert {key.partition: key.parent for key in newest.values()} == dict.fromkeys(PARTITIONS, system.meta)
    report = lifecycle.verify_keys()
    assert (report.problems, report.system_keys >= 2) == ([], True)


@pytest.fixture
def shared(shared_alias: str, settings: Settings) -> str:
    """A database that other processes can open, with a key for each partition."""
    settings.ASHERAH = as_asherah(DATABASE=shared_alias)
    for partition in PARTITIONS:
        engine.get_session(partition).encrypt(b"")
    return shared_alias


@pytest.mark.slow
class TestAtTheSameTime:
    def test_two_processes_leave_one_newest_key_each(self, shared: str) -> None:
        old = {partition: engine.get_session(partition).encrypt(partition.encode()) for partition in PARTITIONS}
        code = "print('ready', flush=True); sys.stdin.readline(); lifecycle.rotate()"
        with peers(url_of(shared), code, code, code) as rotating:
            assert [peer.hear() for peer in rotating] == ["ready"] * 3
            for peer in rotating:
                peer.go_on()
            for peer in rotating:
                peer.end()
        require_one_hierarchy()
        for partition, record in old.items():
            assert engine.get_session(partition).decrypt(record) == partition.encode()

    def test_a_rotation_that_another_overtakes_catches_up_with_it(self, shared: str) -> None:
        made_so_far = 0

        def overtaken(count: int) -> None:
            nonlocal made_so_far
            made_so_far += count
            if made_so_far == 1:
                run_django("from django_asherah import lifecycle; lifecycle.rotate()", url_of(shared))

        report = lifecycle.rotate(batch=1, progress=overtaken)

        require_one_hierarchy()
        made = [meta.key_id for meta in report.intermediate_keys if isinstance(meta, KeyMeta)]
        assert made[: len(PARTITIONS)] == [f"_IK_{partition}_suite_tests" for partition in PARTITIONS]
        assert made[len(PARTITIONS) :] == [f"_IK_{partition}_suite_tests" for partition in PARTITIONS[1:]]


def test_a_rotation_that_others_never_let_come_to_rest_says_how_to_go_on(run: Run) -> None:
    engine.get_session().encrypt(b"")

    def rotate_as_well(*, key_id: str, **kwargs: Any) -> None:
        if key_id != SK_ID:
            engine.get_factory().system_keys.rotate(SK_ID)

    signals.key_rotated.connect(rotate_as_well)
    try:
        (problem,) = run("asherah_rotate")["problems"]
    finally:
        signals.key_rotated.disconnect(rotate_as_well)
    assert problem["reason"] == (
        "the rotation did not come to rest, because others keep rotating: run asherah_rotate --resume"
    )
    assert run("asherah_rotate", "--resume")["summary"]["intermediate_keys"] == 1
    assert lifecycle.verify_keys().problems == []


class TestRunningProcesses:
    def test_they_follow_within_the_revoke_check_interval(self) -> None:
        now = time.time()
        factory = engine.get_factory()
        running = SessionFactory(
            "suite",
            "tests",
            DatabaseMetastore("default"),
            factory.kms,
            CryptoPolicy(revoke_check_interval=3600),
            clock=lambda: now,
            timer=lambda: now,
        )
        session = running.get_session("default")
        old = decode_row(session.encrypt(b"old")).key.parent_key_meta
        lifecycle.rotate()
        now += 3599
        assert decode_row(session.encrypt(b"still old")).key.parent_key_meta == old
        now += 1
        record = session.encrypt(b"new")
        assert decode_row(record).key.parent_key_meta == newest_keys()["_IK_default_suite_tests"].meta != old
        assert session.decrypt(record) == b"new"


class TestInterrupted:
    def test_what_was_due_is_still_due(self, run: Run, settings: Settings) -> None:
        """The system key was renewed, but not yet the younger keys under the old one."""
        now = int(time.time())
        for partition in ("p0", "p1"):
            engine.get_session(partition).encrypt(b"")
        age_system_key(now - 91 * DAY)
        assert [key.state for key in newest_keys().values()] == ["current", "current", "expired"]

        with pytest.raises(KeyboardInterrupt):
            lifecycle.rotate(expired=True, batch=1, progress=interrupt)

        items = run("asherah_rotate", "--expired")["items"]
        assert [item["key_id"] for item in items] == ["_IK_p1_suite_tests"]
        assert newest_keys()["_IK_p1_suite_tests"].parent == newest_keys()[SK_ID].meta
        assert run("asherah_rotate", "--expired")["items"] == []

    @pytest.mark.slow
    def test_killed_at_any_key_and_continued(self, shared: str, run: Run) -> None:
        code = (
            "made = []\n"
            "def stop(count):\n"
            "    made.append(count)\n"
            "    if sum(made) == 3:\n"
            "        print('three', flush=True); sys.stdin.readline()\n"
            "lifecycle.rotate(batch=1, progress=stop)"
        )
        with peers(url_of(shared), code) as (rotating,):
            assert rotating.hear() == "three"
            rotating.kill()
        assert lifecycle.verify_keys().problems == []
        items = run("asherah_rotate", "--resume")["items"]
        assert [item["key_id"] for item in items] == [f"_IK_{partition}_suite_tests" for partition in PARTITIONS[3:]]
        require_one_hierarchy()


def interrupt(count: int) -> None:
    raise KeyboardInterrupt


def age_system_key(created: int) -> None:
    """Let the only system key be of that age, and the intermediate keys under it as young as they are."""
    system = EncryptionKey.objects.get(key_id=SK_ID)
    system.delete()
    metastore = engine.get_factory().metastore
    metastore.store(SK_ID, EnvelopeKeyRecord(created=created, key=base64.b64decode(system.key_record["Key"])))
    for row in EncryptionKey.objects.filter(key_id__startswith="_IK_"):
        row.key_record["ParentKeyMeta"]["Created"] = created
        EncryptionKey.objects.filter(pk=row.pk).update(key_record=row.key_record)
    engine.reset()


class TestOthersInTheTable:
    """Ids are joined without escaping, so another service's key may look like one of ours."""

    THEIRS = KeyMeta("_SK_other_suite_tests", 60)

    @pytest.fixture(autouse=True)
    def look_alike(self) -> None:
        metastore = engine.get_factory().metastore
        metastore.store(self.THEIRS.key_id, EnvelopeKeyRecord(created=60, key=bytes(60)))
        metastore.store(
            "_IK_p_other_suite_tests", EnvelopeKeyRecord(created=60, key=bytes(60), parent_key_meta=self.THEIRS)
        )
        metastore.store("__asherah_internal_config_drift_guard_v1__:x", EnvelopeKeyRecord(created=60, key=bytes(60)))
        engine.get_session("p0").encrypt(b"")

    def test_no_key_is_made_under_their_id(self) -> None:
        report = lifecycle.rotate()
        assert [str(meta).partition(" ")[0] for meta in report.intermediate_keys] == ["_IK_p0_suite_tests"]

    def test_every_command_passes_them_over(self, run: Run, regional: Callable[..., None]) -> None:
        status = run("asherah_status")["summary"]
        assert (status["partitions"], status["keys_of_others"], status["other_rows"]) == (1, 2, 1)
        assert run("asherah_verify")["summary"] == {"system_keys": 1, "intermediate_keys": 1}
        assert run("asherah_revoke", SK_ID, "--latest")["items"][0]["partitions"] == ["p0"]
        assert run("asherah_revoke", self.THEIRS.key_id, "--latest", "--dry-run")["items"][0]["partitions"] == []
        regional()
        assert run("asherah_rewrap")["summary"]["failed"] == 1  # Ours, which the static KMS has wrapped.


class TestRegions:
    def test_a_region_that_fails_while_the_key_is_made_is_a_problem(
        self, run: Run, regional: Callable[..., None]
    ) -> None:
        regional()
        kms: Any = engine.get_factory().kms
        kms.check_wrap = lambda region: None
        kms.down.add("two")
        document = run("asherah_rotate")
        (problem,) = document["problems"]
        assert (document["code"], document["summary"]["system_keys"]) == (1, 1)
        assert problem["at"] == "two"
        assert problem["reason"].startswith(f"two failed while key {SK_ID} created ")
        assert problem["reason"].endswith(" was made: run asherah_rewrap when it works again")

    @pytest.mark.slow
    def test_a_dead_region_refuses_it(self, moto: Callable[..., None], doomed: Any, run: Run) -> None:
        moto()
        engine.get_session().encrypt(b"")
        before = set(newest_keys())
        doomed.kill()
        document = run("asherah_rotate")
        assert document["code"] == 1
        reason = document["problems"][0]["reason"]
        assert reason.startswith(f"no key was rotated, because it would lack a region: the master key {doomed.arn}")
        assert "EndpointConnectionError" in reason
        assert len(list(lifecycle.list_keys())) == len(before) == 2

        document = run("asherah_rotate", "--allow-missing-regions")
        assert (document["code"], document["summary"]["system_keys"]) == (0, 1)
        assert list(document["summary"]["missing_regions"]) == [doomed.region]
        assert list(newest_keys()[SK_ID].regions) == ["us-west-2"]

    @pytest.mark.slow
    def test_no_region_at_all_makes_no_key(self, moto: Callable[..., None], doomed: Any) -> None:
        moto(regions=[doomed])
        doomed.kill()
        with pytest.raises(KMSError):
            lifecycle.rotate(allow_missing_regions=True)
        assert list(lifecycle.list_keys()) == []
