"""Which region is asked first: the preferred one, unless it failed within the last minute."""

from __future__ import annotations

import json
import multiprocessing
import threading
from typing import Any

import pytest

from django_asherah.envelope.interfaces import KMSCalled
from django_asherah.exceptions import KMSError
from django_asherah.kms.aws import AwsKMS
from tests.databases import wait_until
from tests.kms.conftest import Kit
from tests.moto_servers import failing_as

pytestmark = pytest.mark.slow

KEY = bytes(range(32))
WEST, EAST = "us-west-2", "us-east-1"


def calls(kit: Kit) -> list[tuple[str, str]]:
    """Return the calls since the last time, in order."""
    made = [(event.region, event.operation) for event in kit.events if isinstance(event, KMSCalled)]
    kit.events.clear()
    return made


def regions_asked(kit: Kit, kms: AwsKMS, wrapped: bytes) -> list[str]:
    """Read a key; return the regions that were asked, in order."""
    calls(kit)
    assert kms.decrypt_key(wrapped) == KEY
    return [region for region, _ in calls(kit)]


def without_kek_of(region: str, wrapped: bytes) -> bytes:
    """Return the wrapped key with another region's KEK in the place of this one's, which it can't open."""
    document = json.loads(wrapped)
    foreign = next(kek["encryptedKek"] for kek in document["kmsKeks"] if kek["region"] != region)
    for kek in document["kmsKeks"]:
        kek["encryptedKek"] = foreign
    return json.dumps(document).encode()


def let_fail(kms: AwsKMS, region: str, wrapped: bytes) -> None:
    """Let ``region`` fail once; its server stays well."""
    with pytest.raises(KMSError):
        kms.decrypt_key_in(region, without_kek_of(region, wrapped))


@pytest.mark.parametrize(("seconds", "asked"), [(0, [EAST]), (59.9, [EAST]), (60, [WEST]), (1_000_000, [WEST])])
def test_a_region_that_failed_is_not_asked_first_for_a_minute(kit: Kit, seconds: float, asked: list[str]) -> None:
    kms = kit.kms()
    wrapped = kms.encrypt_key(KEY)
    assert regions_asked(kit, kms, wrapped) == [WEST]
    let_fail(kms, WEST, wrapped)
    kit.clock.now += seconds
    assert regions_asked(kit, kms, wrapped) == asked


def test_it_is_still_asked_after_all_others(kit: Kit) -> None:
    kms = kit.kms()
    wrapped = kms.encrypt_key(KEY)
    let_fail(kms, WEST, wrapped)
    kit.clock.now += 59.9
    assert regions_asked(kit, kms, without_kek_of(EAST, wrapped)) == [EAST, WEST]


def test_a_new_key_is_wrapped_there_last_and_not_left_out(kit: Kit) -> None:
    kms = kit.kms()
    let_fail(kms, WEST, kms.encrypt_key(KEY))
    calls(kit)
    assert [region for region, _ in kms.describe(kms.encrypt_key(KEY))] == [EAST, WEST]
    assert calls(kit) == [(EAST, "GenerateDataKey"), (WEST, "Encrypt")]


def test_one_success_makes_it_the_first_again(kit: Kit) -> None:
    kms = kit.kms()
    wrapped = kms.encrypt_key(KEY)
    let_fail(kms, WEST, wrapped)
    kit.clock.now += 60
    assert [regions_asked(kit, kms, wrapped) for _ in range(3)] == [[WEST]] * 3
    assert kms.failing_regions() == frozenset()


def test_a_success_within_the_minute_does_too(kit: Kit) -> None:
    kms = kit.kms()
    wrapped = kms.encrypt_key(KEY)
    let_fail(kms, WEST, wrapped)
    assert kms.decrypt_key_in(WEST, wrapped) == KEY
    assert regions_asked(kit, kms, wrapped) == [WEST]


def test_a_probe_that_fails_begins_another_minute(kit: Kit) -> None:
    wrapped = kit.kms().encrypt_key(KEY)
    with failing_as("AccessDeniedException") as west:
        kms = kit.kms({WEST: west.url})
        assert regions_asked(kit, kms, wrapped) == [WEST, EAST]
        kit.clock.now += 60
        assert regions_asked(kit, kms, wrapped) == [WEST, EAST]
        kit.clock.now += 59.9
        assert regions_asked(kit, kms, wrapped) == [EAST]
        kit.clock.now += 0.1
        assert regions_asked(kit, kms, wrapped) == [WEST, EAST]


def test_the_minute_counts_from_the_last_failure(kit: Kit) -> None:
    kms = kit.kms()
    wrapped = kms.encrypt_key(KEY)
    let_fail(kms, WEST, wrapped)
    kit.clock.now += 30
    let_fail(kms, WEST, wrapped)
    kit.clock.now += 59.9
    assert regions_asked(kit, kms, wrapped) == [EAST]
    kit.clock.now += 0.1
    assert regions_asked(kit, kms, wrapped) == [WEST]


def test_while_one_caller_probes_it_the_others_still_ask_it_last(kit: Kit) -> None:
    wrapped = kit.kms().encrypt_key(KEY)
    with failing_as("AccessDeniedException") as west:
        kms = kit.kms({WEST: west.url}, read_timeout=60)
        kms.decrypt_key(wrapped)
        kit.clock.now += 60
        west.may_answer.clear()
        probe = threading.Thread(target=kms.decrypt_key, args=(wrapped,))
        probe.start()
        wait_until(lambda: west.requests == 2)
        assert [regions_asked(kit, kms, wrapped) for _ in range(3)] == [[EAST]] * 3
        west.may_answer.set()
        probe.join()
        assert west.requests == 2


def _ask_in_child(kit: Kit, kms: AwsKMS, wrapped: bytes, queue: Any) -> None:
    queue.put(regions_asked(kit, kms, wrapped))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_knows_of_no_failure(kit: Kit) -> None:
    kms = kit.kms()
    wrapped = kms.encrypt_key(KEY)
    let_fail(kms, WEST, wrapped)
    context: Any = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_ask_in_child, args=(kit, kms, wrapped, queue))
    child.start()
    assert queue.get() == [WEST]
    child.join()
    assert regions_asked(kit, kms, wrapped) == [EAST]
