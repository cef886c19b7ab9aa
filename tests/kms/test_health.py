"""Which region is asked first: the preferred one, unless it failed within the last minute."""

from __future__ import annotations

import threading

import pytest

from django_asherah.kms.multi_region import MultiRegionKMS
from tests.forking import Fork, either_fork, in_child
from tests.kms.modules import KEY, Modules

ZURICH, BERN, BASEL = "zurich", "bern", "basel"


def regions_asked(modules: Modules, kms: MultiRegionKMS, wrapped: bytes) -> list[str]:
    """Read a key; return the regions that were asked, in order."""
    modules.asked.clear()
    assert kms.decrypt_key(wrapped) == KEY
    return modules.asked_regions()


def let_fail_once(modules: Modules, kms: MultiRegionKMS, region: str) -> None:
    modules.fail(region, PermissionError())
    with pytest.raises(Exception, match="PermissionError"):
        kms.check_region(region)
    modules.failures.clear()


@pytest.fixture
def kms(modules: Modules) -> MultiRegionKMS:
    """A KMS whose preferred region failed just now, and works again."""
    kms = modules.kms()
    let_fail_once(modules, kms, ZURICH)
    return kms


@pytest.fixture
def wrapped(modules: Modules) -> bytes:
    return modules.kms().encrypt_key(KEY)


@pytest.mark.parametrize(
    ("seconds", "asked"), [(0, [BERN]), (59.9, [BERN]), (60, [ZURICH]), (60.1, [ZURICH]), (1_000_000, [ZURICH])]
)
def test_a_region_that_failed_is_not_asked_first_for_exactly_a_minute(
    modules: Modules, kms: MultiRegionKMS, wrapped: bytes, seconds: float, asked: list[str]
) -> None:
    assert regions_asked(modules, modules.kms(), wrapped) == [ZURICH]
    modules.now += seconds
    assert regions_asked(modules, kms, wrapped) == asked


def test_it_is_still_asked_after_all_others(modules: Modules, kms: MultiRegionKMS, wrapped: bytes) -> None:
    modules.fail(BERN, PermissionError())
    modules.fail(BASEL, PermissionError())
    assert regions_asked(modules, kms, wrapped) == [BERN, BASEL, ZURICH]


def test_a_new_key_is_wrapped_there_too(modules: Modules, kms: MultiRegionKMS) -> None:
    modules.asked.clear()
    made = kms.encrypt_key(KEY)
    assert list(kms.regions_of(made)) == [BERN, ZURICH, BASEL]
    assert modules.asked_regions()[0] == BERN


def test_one_success_makes_it_the_first_again(modules: Modules, kms: MultiRegionKMS, wrapped: bytes) -> None:
    assert kms.decrypt_key_in(ZURICH, wrapped) == KEY
    assert regions_asked(modules, kms, wrapped) == [ZURICH]


def test_a_probe_that_succeeds_does_too(modules: Modules, kms: MultiRegionKMS, wrapped: bytes) -> None:
    modules.now += 60
    assert [regions_asked(modules, kms, wrapped) for _ in range(3)] == [[ZURICH]] * 3


def test_the_minute_counts_from_the_last_failure(modules: Modules, kms: MultiRegionKMS, wrapped: bytes) -> None:
    modules.now += 30
    let_fail_once(modules, kms, ZURICH)
    modules.now += 59.9
    assert regions_asked(modules, kms, wrapped) == [BERN]
    modules.now += 0.1
    assert regions_asked(modules, kms, wrapped) == [ZURICH]


def test_a_probe_that_fails_begins_another_minute(modules: Modules, kms: MultiRegionKMS, wrapped: bytes) -> None:
    modules.fail(ZURICH, PermissionError())
    modules.now += 60
    assert regions_asked(modules, kms, wrapped) == [ZURICH, BERN]
    modules.now += 59.9
    assert regions_asked(modules, kms, wrapped) == [BERN]
    modules.now += 0.1
    assert regions_asked(modules, kms, wrapped) == [ZURICH, BERN]


def test_while_one_thread_probes_it_the_others_still_ask_it_last(
    modules: Modules, kms: MultiRegionKMS, wrapped: bytes
) -> None:
    asked, may_answer = threading.Event(), threading.Event()

    def stall(name: str, what: str) -> None:
        modules.meanwhile = lambda name, what: None
        asked.set()
        may_answer.wait(60)

    modules.now += 60
    modules.meanwhile = stall
    probe = threading.Thread(target=kms.decrypt_key, args=(wrapped,))
    probe.start()
    try:
        assert asked.wait(60)
        assert [regions_asked(modules, kms, wrapped) for _ in range(3)] == [[BERN]] * 3
    finally:
        may_answer.set()
        probe.join()
    assert regions_asked(modules, kms, wrapped) == [ZURICH]


@either_fork
def test_a_forked_child_knows_of_no_failure(fork: Fork, modules: Modules, kms: MultiRegionKMS, wrapped: bytes) -> None:
    answers, asked = in_child(fork, lambda: (kms.last_answers(), regions_asked(modules, kms, wrapped)))
    assert (answers, asked) == ({}, [ZURICH])
    assert regions_asked(modules, kms, wrapped) == [BERN]
