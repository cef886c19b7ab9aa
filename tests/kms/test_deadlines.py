"""A region that does not end its answer, whatever it waits for, and one that fails for a moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from django_asherah.deadlines import MOST_LEFT
from django_asherah.envelope.interfaces import KMSCalled, RegionFailed
from django_asherah.exceptions import KMSError
from tests.kms.modules import KEK, KEY, NAMES, BusyError, Modules
from tests.leaks.search import holding_frames, holds

SHORT = 0.5
SILENCE = "the KMS of region zurich has not answered within 0.5 seconds"


@pytest.fixture
def hung(modules: Modules) -> Iterator[threading.Event]:
    """Let every call of Zurich's module hang, as for a name server that does not answer, until this is set."""
    released = threading.Event()

    def hang(name: str, what: str) -> None:
        if name == NAMES["zurich"]:
            released.wait()

    modules.meanwhile = hang
    yield released
    released.set()


def test_another_region_unwraps(modules: Modules, hung: threading.Event) -> None:
    wrapped = modules.kms({"bern": NAMES["bern"]}, "bern").encrypt_key(KEY)
    kms = modules.kms({"zurich": NAMES["zurich"], "bern": NAMES["bern"]}, deadline=SHORT)
    hung.set()
    both = kms.rewrap(wrapped)
    hung.clear()
    modules.events.clear()

    assert kms.decrypt_key(both) == KEY

    assert [(type(event), event.region) for event in modules.events] == [
        (KMSCalled, "zurich"),
        (RegionFailed, "zurich"),
        (KMSCalled, "bern"),
    ]
    assert modules.events[0] == KMSCalled("zurich", "Decrypt", 0.0, "DeadlineError")
    assert str(modules.events[1].cause) == SILENCE
    assert not kms.last_answers()["zurich"].ok


def test_another_region_makes_the_key_and_it_is_not_asked_to_wrap_it(modules: Modules, hung: threading.Event) -> None:
    kms = modules.kms(deadline=SHORT, max_attempts=3)
    wrapped = kms.encrypt_key(KEY)
    assert sorted(kms.regions_of(wrapped)) == ["basel", "bern"]
    assert modules.asked_regions().count("zurich") == 1
    assert modules.failed() == [("zurich", "GenerateDataKey"), ("zurich", "Encrypt")]


@pytest.mark.parametrize("what", ["make", "wrap", "unwrap", "look"])
def test_whatever_it_is_asked_ends_in_an_error_that_holds_no_key(modules: Modules, what: str) -> None:
    wrapped = modules.kms().encrypt_key(KEY)
    released = threading.Event()

    def hang(name: str, asked: str) -> None:
        if asked == what:
            released.wait()

    modules.meanwhile = hang
    kms = modules.kms({"zurich": NAMES["zurich"]}, deadline=SHORT)
    work = {
        "make": lambda: kms.encrypt_key(KEY),
        "wrap": lambda: kms.check_wrap("zurich"),
        "unwrap": lambda: kms.decrypt_key(wrapped),
        "look": lambda: kms.check_region("zurich"),
    }
    try:
        with pytest.raises(KMSError) as caught:
            work[what]()
    finally:
        released.set()
    assert {region: str(cause) for region, cause in caught.value.failures.items()} == {"zurich": SILENCE}
    assert holding_frames(caught.value, KEK) == []
    assert holds(f"{caught.value!r} {modules.events}", KEK, KEY) == []


@pytest.mark.slow
def test_a_region_that_always_hangs_is_not_asked_a_fifth_time_while_four_calls_hang(
    modules: Modules, hung: threading.Event
) -> None:
    hung.set()
    wrapped = modules.kms().encrypt_key(KEY)
    hung.clear()
    kms = modules.kms(deadline=SHORT)
    modules.asked.clear()
    for _ in range(10):
        assert kms.decrypt_key(wrapped) == KEY
        modules.now += 60
    assert modules.asked_regions().count("zurich") == MOST_LEFT
    reasons = [str(event.cause) for event in modules.events if isinstance(event, RegionFailed)]
    refused = (
        "the KMS of region zurich is not asked: 4 earlier calls still wait for its answer, long after their deadline"
    )
    assert reasons == [SILENCE] * MOST_LEFT + [refused] * 6


def test_between_attempts_there_are_pauses_that_double_and_vary(modules: Modules) -> None:
    modules.fail("zurich", BusyError())
    with pytest.raises(KMSError):
        modules.kms(max_attempts=4).check_region("zurich")
    assert modules.pauses == [0.05, 0.1, 0.2]

    fractions = iter([0.25, 0.5])
    modules.pauses.clear()
    with pytest.raises(KMSError):
        modules.kms(max_attempts=3, random=lambda: next(fractions)).check_region("zurich")
    assert modules.pauses == [0.025, 0.1]


def test_no_attempt_begins_when_the_time_is_over(modules: Modules) -> None:
    modules.fail("zurich", BusyError())

    def sleep(seconds: float) -> None:
        modules.now += seconds

    with pytest.raises(KMSError, match="BusyError"):
        modules.kms(deadline=1.0, max_attempts=100, sleep=sleep, random=lambda: 1.0).check_region("zurich")
    # 0.1, 0.2 and 0.4 seconds: another 0.8 would be beyond the deadline.
    assert modules.asked_regions() == ["zurich"] * 4
    assert modules.now == pytest.approx(1000.7)


def test_what_does_not_pass_is_not_waited_for(modules: Modules) -> None:
    modules.fail("zurich", PermissionError())
    with pytest.raises(KMSError):
        modules.kms(max_attempts=4).check_region("zurich")
    assert modules.pauses == []
