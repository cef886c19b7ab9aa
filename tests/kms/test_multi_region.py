"""System keys wrapped under master keys of whatever provider, one per region."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from django_asherah.envelope.aead import Cipher
from django_asherah.envelope.interfaces import KMSCalled, RegionFailed
from django_asherah.exceptions import DecryptionError, KMSError
from django_asherah.kms.health import LastAnswer
from django_asherah.kms.kek import RegionKek, WrappedSystemKey, decode_wrapped, encode_wrapped
from django_asherah.kms.regional import is_regional
from tests.kms.modules import KEK, KEY, NAMES, BusyError, Modules, SilentError
from tests.leaks.search import holding_frames, holds


def test_it_is_a_regional_kms(modules: Modules) -> None:
    assert is_regional(modules.kms())


def test_the_preferred_region_stands_first(modules: Modules) -> None:
    assert list(modules.kms(preferred="basel").master_keys.items()) == [
        ("basel", "pkcs11:object=c"),
        ("zurich", "pkcs11:object=a"),
        ("bern", "pkcs11:object=b"),
    ]


@pytest.mark.parametrize("region", NAMES)
def test_any_region_is_enough(modules: Modules, region: str) -> None:
    wrapped = modules.kms().encrypt_key(KEY)
    for other in NAMES.keys() - {region}:
        modules.fail(other, SilentError())
    assert modules.kms().decrypt_key(wrapped) == KEY
    assert modules.kms().regions_of(wrapped) == NAMES


def test_every_call_is_told_with_its_outcome(modules: Modules) -> None:
    modules.fail("bern", PermissionError())
    modules.kms().encrypt_key(KEY)
    assert sorted((event for event in modules.events if isinstance(event, KMSCalled)), key=str) == [
        KMSCalled("basel", "Decrypt", 0.0, None),
        KMSCalled("basel", "Encrypt", 0.0, None),
        KMSCalled("bern", "Encrypt", 0.0, "PermissionError"),
        KMSCalled("zurich", "Decrypt", 0.0, None),
        KMSCalled("zurich", "GenerateDataKey", 0.0, None),
    ]


def test_only_what_may_pass_is_tried_again(modules: Modules) -> None:
    wrapped = modules.kms().encrypt_key(KEY)
    for error, times in ((BusyError(), 3), (SilentError(), 1), (PermissionError(), 1)):
        modules.fail("zurich", error)
        modules.asked.clear()
        with pytest.raises(KMSError):
            modules.kms(max_attempts=3).decrypt_key_in("zurich", wrapped)
        assert modules.asked_regions() == ["zurich"] * times


def test_a_region_that_answers_at_the_second_attempt_has_not_failed(modules: Modules) -> None:
    modules.fail("zurich", BusyError(), PermissionError())
    with pytest.raises(KMSError, match="PermissionError"):
        modules.kms().check_region("zurich")
    modules.failures.clear()
    kms = modules.kms()
    kms.check_region("zurich")
    assert kms.last_answers()["zurich"].ok


def test_a_region_that_timed_out_when_the_kek_was_made_is_not_asked_to_wrap_it(modules: Modules) -> None:
    modules.fail("zurich", SilentError())
    wrapped = modules.kms().encrypt_key(KEY)
    assert sorted(modules.asked_regions()) == ["basel", "basel", "bern", "bern", "zurich"]
    assert modules.failed() == [("zurich", "GenerateDataKey"), ("zurich", "Encrypt")]
    assert sorted(modules.kms().regions_of(wrapped)) == ["basel", "bern"]


def test_a_region_that_refused_to_make_the_kek_is_asked_to_wrap_it(modules: Modules) -> None:
    modules.fail("zurich", PermissionError())
    modules.kms().encrypt_key(KEY)
    assert sorted(modules.asked_regions()) == ["basel", "basel", "bern", "bern", "zurich", "zurich"]


def test_a_failing_region_is_asked_last_for_a_minute_and_then_by_one_caller(modules: Modules) -> None:
    wrapped = modules.kms().encrypt_key(KEY)
    modules.fail("zurich", SilentError())
    modules.fail("bern", SilentError())
    modules.asked.clear()
    kms = modules.kms()
    orders = []
    for moment in (0.0, 0.0, 59.0, 60.0, 60.0, 119.0, 120.0):
        modules.now = 1000.0 + moment
        assert kms.decrypt_key(wrapped) == KEY
        orders.append(modules.asked_regions())
    last, probed = ["basel"], ["zurich", "bern", "basel"]
    assert orders == [probed, last, last, probed, last, last, probed]


def test_a_region_whose_probe_is_still_running_stays_last_for_the_others(modules: Modules) -> None:
    wrapped = modules.kms().encrypt_key(KEY)
    modules.fail("zurich", SilentError())
    kms = modules.kms()
    kms.decrypt_key(wrapped)
    modules.now += 60
    modules.failures.clear()
    served: list[list[str]] = []

    def serve_another(name: str, what: str) -> None:
        modules.meanwhile = lambda name, what: None
        modules.asked.clear()
        assert kms.decrypt_key(wrapped) == KEY
        served.append(modules.asked_regions())

    modules.meanwhile = serve_another
    assert kms.decrypt_key(wrapped) == KEY
    assert served == [["bern"]]
    assert kms.decrypt_key(wrapped) == KEY
    assert modules.asked_regions() == ["zurich"], "it works again, and is asked first"


def test_a_region_that_unwraps_another_kek_is_a_failing_one(modules: Modules) -> None:
    wrapped = decode_wrapped(modules.kms().encrypt_key(KEY))
    forged = RegionKek("zurich", NAMES["zurich"], Cipher(sha256(NAMES["zurich"].encode()).digest()).seal(bytes(32)))
    keks = [forged, *(kek for kek in wrapped.kms_keks if kek.region != "zurich")]
    kms = modules.kms()
    assert kms.decrypt_key(encode_wrapped(WrappedSystemKey(wrapped.encrypted_key, keks))) == KEY
    assert not kms.last_answers()["zurich"].ok
    assert modules.failed() == [("zurich", "Decrypt")]


@pytest.mark.parametrize("kek", [b"", KEK[:16], KEK + b"x", None, bytearray(KEK)], ids=str)
def test_what_is_no_kek_is_a_failure_of_its_region(modules: Modules, kek: Any) -> None:
    wrapped = modules.kms().encrypt_key(KEY)
    modules.answers[NAMES["zurich"]] = (kek, b"blob")
    kms = modules.kms()
    assert kms.decrypt_key(wrapped) == KEY
    assert modules.kms().decrypt_key(kms.encrypt_key(KEY)) == KEY
    with pytest.raises(KMSError, match="its answer holds no data key of 32 bytes") as caught:
        kms.decrypt_key_in("zurich", wrapped)
    assert holding_frames(caught.value, KEK) == []


@pytest.mark.parametrize("blob", [b"", None, "text"], ids=repr)
def test_what_is_no_wrapped_kek_is_a_failure_of_its_region(modules: Modules, blob: Any) -> None:
    modules.answers[NAMES["zurich"]] = (KEK, blob)
    wrapped = modules.kms().encrypt_key(KEY)
    assert sorted(modules.kms().regions_of(wrapped)) == ["basel", "bern"]


def test_a_master_key_that_is_unfit_is_named_with_its_region(modules: Modules) -> None:
    modules.problems[NAMES["bern"]] = "is of the wrong kind"
    kms = modules.kms()
    kms.check_region("zurich")
    with pytest.raises(KMSError) as caught:
        kms.check_region("bern")
    assert str(caught.value) == "the master key pkcs11:object=b of region bern is of the wrong kind"


def test_rewrap_asks_an_old_master_key_only_if_it_is_named(modules: Modules) -> None:
    wrapped = modules.kms().encrypt_key(KEY)
    new = {"geneva": "pkcs11:object=d"}
    kms = modules.kms(new, "geneva")
    with pytest.raises(KMSError, match="no region could unwrap the system key"):
        kms.rewrap(wrapped)
    moved = kms.rewrap(wrapped, old_master_keys=[NAMES["bern"]])
    assert kms.regions_of(moved) == new
    assert kms.decrypt_key(moved) == KEY


def test_rewrap_names_the_old_master_keys_that_failed_and_why(modules: Modules) -> None:
    wrapped = modules.kms().encrypt_key(KEY)
    modules.fail("bern", PermissionError("withdrawn"))
    with pytest.raises(KMSError) as caught:
        modules.kms({"geneva": "pkcs11:object=d"}, "geneva").rewrap(wrapped, old_master_keys=[NAMES["bern"]])
    assert {name: str(cause) for name, cause in caught.value.failures.items()} == {
        "geneva": "the system key was not wrapped for this region",
        NAMES["bern"]: "withdrawn",
    }


def test_rewrap_tries_an_old_master_key_that_no_record_names_in_every_region(modules: Modules) -> None:
    wrapped = decode_wrapped(modules.kms({"bern": NAMES["bern"], "basel": NAMES["basel"]}, "bern").encrypt_key(KEY))
    renamed = [RegionKek(kek.region, f"alias/{kek.region}", kek.encrypted_kek) for kek in wrapped.kms_keks]
    blob = encode_wrapped(WrappedSystemKey(wrapped.encrypted_key, renamed))
    kms = modules.kms({"geneva": "pkcs11:object=d"}, "geneva")
    for old in ("bern", "basel"):
        assert kms.decrypt_key(kms.rewrap(blob, old_master_keys=[NAMES[old]])) == KEY
    with pytest.raises(KMSError) as caught:
        kms.rewrap(blob, old_master_keys=["pkcs11:object=x", "alias/basel", "pkcs11:object=x"])
    assert list(caught.value.failures) == [
        "geneva",
        "alias/basel",
        "pkcs11:object=x in bern",
        "pkcs11:object=x in basel",
    ]


def test_a_region_that_can_not_answer_now_is_asked_twice_if_nothing_else_is_said(modules: Modules) -> None:
    modules.fail("zurich", BusyError())
    with pytest.raises(KMSError):
        modules.kms().check_region("zurich")
    assert modules.asked_regions() == ["zurich", "zurich"]


def test_rewrap_refuses_a_region_that_does_not_unwrap_what_it_has_just_wrapped(modules: Modules) -> None:
    wrapped = modules.kms({"zurich": NAMES["zurich"]}).encrypt_key(KEY)
    kms = modules.kms({"zurich": NAMES["zurich"], "bern": NAMES["bern"]})

    def fail_to_unwrap(name: str, what: str) -> None:
        if (name, what) == (NAMES["bern"], "unwrap"):
            raise PermissionError

    modules.meanwhile = fail_to_unwrap
    with pytest.raises(KMSError, match="not every region could wrap the system key: bern: DecryptionError") as caught:
        kms.rewrap(wrapped)
    assert [type(cause) for cause in caught.value.failures.values()] == [DecryptionError]


def test_rewrap_refuses_when_no_configured_region_wraps_although_missing_ones_are_allowed(modules: Modules) -> None:
    wrapped = modules.kms().encrypt_key(KEY)
    kms = modules.kms({"geneva": "pkcs11:object=d", "basel": "pkcs11:object=e"}, "geneva")
    for name in ("pkcs11:object=d", "pkcs11:object=e"):
        modules.failures[name] = [PermissionError("no")]
    with pytest.raises(KMSError, match="no configured region could wrap the system key: ") as caught:
        kms.rewrap(wrapped, old_master_keys=[NAMES["bern"]], allow_missing=True)
    assert {region: str(cause) for region, cause in caught.value.failures.items()} == {"geneva": "no", "basel": "no"}


@pytest.mark.parametrize("work", ["encrypt_key", "decrypt_key", "rewrap", "check_wrap"])
def test_no_error_and_no_event_holds_a_kek(modules: Modules, work: str) -> None:
    wrapped = modules.kms().encrypt_key(KEY)
    for region in NAMES:
        modules.fail(region, PermissionError(region))
    given: Any = {"encrypt_key": KEY, "check_wrap": "bern"}.get(work, wrapped)
    with pytest.raises(KMSError) as caught:
        getattr(modules.kms(), work)(given)
    assert holding_frames(caught.value, KEK) == []
    causes = [event.cause for event in modules.events if isinstance(event, RegionFailed)]
    assert [holding_frames(cause, KEK) for cause in causes] == [[]] * len(causes)
    assert holds(f"{caught.value!r} {vars(caught.value)} {modules.events}", KEK, KEY) == []


def test_rewrap_that_changes_nothing_gives_the_same_bytes(modules: Modules) -> None:
    wrapped = modules.kms().encrypt_key(KEY)
    assert modules.kms().rewrap(wrapped) == wrapped
    assert modules.failed() == []


def test_with_missing_regions_allowed_a_copy_that_its_region_does_not_unwrap_is_left_out(modules: Modules) -> None:
    wrapped = modules.kms({"zurich": NAMES["zurich"], "basel": NAMES["basel"]}).encrypt_key(KEY)

    def fail_to_unwrap(name: str, what: str) -> None:
        if (name, what) == (NAMES["bern"], "unwrap"):
            raise PermissionError

    modules.meanwhile = fail_to_unwrap
    moved = modules.kms().rewrap(wrapped, allow_missing=True)
    assert sorted(modules.kms().regions_of(moved)) == ["basel", "zurich"]


def test_a_copy_that_rewrap_can_not_prove_is_reported_and_made_anew(modules: Modules) -> None:
    wrapped = decode_wrapped(modules.kms().encrypt_key(KEY))
    broken = [RegionKek(kek.region, kek.arn, b"broken") if kek.region == "bern" else kek for kek in wrapped.kms_keks]
    blob = encode_wrapped(WrappedSystemKey(wrapped.encrypted_key, broken))
    moved = modules.kms().rewrap(blob)
    assert modules.kms().decrypt_key_in("bern", moved) == KEY
    failures = [event for event in modules.events if isinstance(event, RegionFailed)]
    assert [(event.region, event.operation, event.consequence) for event in failures] == [
        ("bern", "Decrypt", "its copy of the KEK is not proven")
    ]


def test_an_error_of_one_region_names_that_region_and_its_cause(modules: Modules) -> None:
    modules.fail("bern", PermissionError("no"))
    modules.problems[NAMES["basel"]] = "is of the wrong kind"
    kms = modules.kms()
    for check in (kms.check_region, kms.check_wrap):
        with pytest.raises(KMSError) as caught:
            check("bern")
        assert {region: type(cause) for region, cause in caught.value.failures.items()} == {"bern": PermissionError}
    with pytest.raises(KMSError) as caught:
        kms.check_region("basel")
    assert caught.value.failures == {"basel": caught.value}


def test_how_long_ago_each_region_last_answered(modules: Modules) -> None:
    kms = modules.kms()
    modules.fail("bern", PermissionError())
    kms.check_region("zurich")
    modules.now += 5
    with pytest.raises(KMSError):
        kms.check_region("bern")
    modules.now += 2
    assert kms.last_answers() == {"zurich": LastAnswer(ok=True, age=7.0), "bern": LastAnswer(ok=False, age=2.0)}


def test_its_repr_names_the_regions_and_no_key(modules: Modules) -> None:
    assert repr(modules.kms()) == "<MultiRegionKMS zurich, bern, basel>"
