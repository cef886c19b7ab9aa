"""A million partitions: what the lifecycle of keys does takes no more memory and no more queries per key for them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_asherah import engine, lifecycle
from django_asherah.envelope.records import KeyMeta
from django_asherah.lifecycle.first import MOST_LISTED
from django_asherah.models import EncryptionKey
from tests.databases import execute
from tests.lifecycle.conftest import Run
from tests.memory import peak_of

pytestmark = pytest.mark.django_db(transaction=True)

FEW, MANY = 3_000, 9_000
SK_ID = "_SK_suite_tests"


@pytest.fixture(autouse=True)
def regions(settings: Any) -> None:
    settings.ASHERAH = {
        "SERVICE": "suite",
        "PRODUCT": "tests",
        "KMS": "tests.regional.PretendedAws",
        "KMS_OPTIONS": {"arns": {"one": "arn-1", "two": "arn-2"}},
    }


def make_keys(start: int, end: int) -> None:
    """Make the keys of as many partitions, a few at a time: what the test holds is not what it measures."""
    factory = engine.get_factory()
    for first in range(start, end, 1_000):
        factory.current_keys(f"tenant-{number}" for number in range(first, min(first + 1_000, end)))


def peak_without_keys(work: Callable[[], Any], *, warm: bool = True) -> int:
    """Return the most memory (bytes) that ``work`` holds at a time; what is cold is done once before."""
    if not warm:
        engine.reset()
        work()
    engine.reset()
    return peak_of(work)[1]


@pytest.fixture
def unlogged() -> Iterator[None]:
    """Keep pytest from keeping each key's line of the audit log."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


WORKS: dict[str, Callable[[Run], Any]] = {
    "status": lambda run: run("asherah_status", "--offset", "500"),
    "verify": lambda run: run("asherah_verify"),
    "rewrap": lambda run: run("asherah_rewrap"),
    "revoke, tried": lambda run: run("asherah_revoke", SK_ID, "--latest", "--dry-run"),
    "rotate, tried": lambda run: run("asherah_rotate", "--dry-run"),
    "rotate": lambda run: run("asherah_rotate"),
    "rotate what is due": lambda run: run("asherah_rotate", "--expired"),
}


@pytest.mark.slow
@pytest.mark.memory
@pytest.mark.usefixtures("unlogged")
def test_the_commands_need_no_more_memory_for_nine_thousand_partitions_than_for_three(run: Run) -> None:
    make_keys(0, FEW)
    few = {name: peak_without_keys(partial(work, run), warm=False) for name, work in WORKS.items()}
    make_keys(FEW, MANY)
    many = {name: peak_without_keys(partial(work, run)) for name, work in WORKS.items()}

    growth = {name: round(many[name] / few[name], 2) for name in WORKS}
    assert max(growth.values()) <= 1.2, growth


@pytest.mark.slow
@pytest.mark.memory
@pytest.mark.usefixtures("unlogged")
def test_keys_that_can_not_be_read_or_opened_need_no_more_memory_either(run: Run) -> None:
    def damage() -> None:
        execute("default", "UPDATE encryption_key SET key_record = '{}' WHERE id LIKE '%%3_suite_tests'", [])

    works = {name: WORKS[name] for name in ("status", "verify")}
    make_keys(0, 11_000)
    damage()
    few = {name: peak_without_keys(partial(work, run), warm=False) for name, work in works.items()}
    make_keys(11_000, 16_000)
    damage()
    many = {name: peak_without_keys(partial(work, run)) for name, work in works.items()}

    growth = {name: round(many[name] / few[name], 2) for name in works}
    assert max(growth.values()) <= 1.2, growth


class TestQueries:
    """Those of the caller's own connection: PostgreSQL and MariaDB are written to through another."""

    def queries_of(self, work: Callable[[], Any]) -> int:
        engine.reset()
        with CaptureQueriesContext(connection) as queries:
            work()
        return len(queries)

    @pytest.mark.parametrize("name", ["status", "verify", "revoke, tried", "rotate, tried", "rotate"])
    def test_nine_hundred_keys_more_cost_a_few_queries_more(self, run: Run, name: str) -> None:
        make_keys(0, 100)
        few = self.queries_of(lambda: WORKS[name](run))
        make_keys(100, 1_000)
        assert self.queries_of(lambda: WORKS[name](run)) - few <= 16

    def test_those_of_many_partitions_that_are_named_too(self) -> None:
        names = [f"tenant-{number}" for number in range(900)]
        few = self.queries_of(lambda: lifecycle.rotate(partitions=names[:10]))
        assert self.queries_of(lambda: lifecycle.rotate(partitions=names)) - few <= 16

    @pytest.mark.parametrize("name", ["rewrap"])
    def test_to_re_wrap_reads_system_keys_alone(self, run: Run, name: str) -> None:
        make_keys(0, 10)
        few = self.queries_of(lambda: WORKS[name](run))
        make_keys(10, 1_200)
        assert self.queries_of(lambda: WORKS[name](run)) == few


class TestListed:
    """A report of very many lists the first thousand, and counts all."""

    @pytest.fixture
    def many(self) -> int:
        make_keys(0, MOST_LISTED + 50)
        return MOST_LISTED + 50

    def test_rotated(self, many: int, run: Run) -> None:
        document = run("asherah_rotate", "--dry-run")
        assert document["summary"]["intermediate_keys"] == many
        assert len(document["items"]) == MOST_LISTED + 1

        document = run("asherah_rotate")
        assert document["summary"]["intermediate_keys"] == many
        assert len(document["items"]) == MOST_LISTED + 1
        assert EncryptionKey.objects.count() == 2 * (many + 1)
        (parent,) = {key.parent for key in lifecycle.list_keys() if key.parent and key.state == "current"}
        assert (
            parent.created
            == max(EncryptionKey.objects.filter(key_id=SK_ID).values_list("created", flat=True)).timestamp()
        )

    def test_revoked(self, many: int, run: Run) -> None:
        document = run("asherah_revoke", SK_ID, "--latest", "--dry-run")
        assert document["summary"]["partitions"] == many
        listed = document["items"][0]["partitions"]
        assert len(listed) == MOST_LISTED
        assert listed == sorted(listed)
        text, _ = run.text("asherah_revoke", SK_ID, "--latest")
        assert f"{listed[-1]} and 50 more." in text

    def test_unreadable(self, many: int, run: Run) -> None:
        execute("default", "UPDATE encryption_key SET key_record = '{}' WHERE id LIKE '_IK%%'", [])
        for command, what in (("asherah_status", "rows are no keys"), ("asherah_verify", "problems")):
            problems = run(command)["problems"]
            assert len(problems) == MOST_LISTED + 1
            assert problems[-1] == {"at": "keys", "reason": f"50 more {what}"}


def test_a_kms_that_is_down_is_not_asked_for_each_intermediate_key(settings: Any) -> None:
    make_keys(0, 30)
    (system,) = (key.meta for key in lifecycle.list_keys() if key.parent is None)
    engine.reset()
    kms: Any = engine.get_factory().kms
    calls: list[bytes] = []

    def count(wrapped: bytes) -> bytearray:
        calls.append(wrapped)
        return bytearray(decrypt(wrapped))

    decrypt, kms.decrypt_key = kms.decrypt_key, count
    kms.down.update(("one", "two"))
    report = lifecycle.verify_keys()

    assert report.intermediate_keys == 0
    reasons = [reason for at, reason in report.problems if at.startswith("_IK_")]
    assert len(reasons) == 30
    assert reasons[1:] == [f"not tried again: no KMS unwraps its system key {system}"] * 29
    assert len(calls) == 2


def test_a_rotation_renews_only_what_was_due_and_catches_up_with_that_alone() -> None:
    """Another rotation comes between, and leaves the keys of ours under a system key that is not the newest."""
    make_keys(0, 6)
    factory = engine.get_factory()
    due = [factory.get_session(f"tenant-{number}").newest_key().meta for number in range(3)]
    for meta in due:
        lifecycle.revoke(meta.key_id, meta.created)
    rotated: list[KeyMeta] = []

    def overtake(count: int) -> None:
        if not rotated:
            rotated.append(engine.get_factory().system_keys.rotate(SK_ID).meta)

    report = lifecycle.rotate(expired=True, batch=1, progress=overtake)

    newest: dict[str, Any] = {}
    for key in lifecycle.list_keys():
        newest.setdefault(key.meta.key_id, key)
    assert report.system_key is None
    assert [newest[meta.key_id].parent for meta in due] == rotated * 3
    assert {newest[f"_IK_tenant-{number}_suite_tests"].meta.created for number in range(3, 6)} == {due[0].created}
