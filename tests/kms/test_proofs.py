"""What a region answers when a key is made is opened once, before anything is encrypted under it."""

from __future__ import annotations

from typing import Any

import pytest

from django_asherah.envelope.aead import Cipher
from django_asherah.envelope.interfaces import RegionFailed
from django_asherah.envelope.records import SEALED_KEY_LENGTH
from django_asherah.exceptions import KMSError
from django_asherah.kms.kek import MAX_CIPHERTEXT_LENGTH
from django_asherah.kms.multi_region import MultiRegionKMS
from tests.kms.modules import KEK, KEY, NAMES, Module, Modules, SilentError
from tests.leaks.search import holding_frames, holds

OTHER_KEK = b"another-K3K-0123456789abcdef-KEK"
ANOTHER = "it opens what it has just wrapped to another data key"
NEXT = "the next region is asked"
LEFT_OUT = "the new system key can't be opened there until it is re-wrapped"


def reported(modules: Modules) -> list[tuple[str, str, str, str]]:
    failures = [event for event in modules.events if isinstance(event, RegionFailed)]
    return sorted((event.region, event.operation, str(event.cause), event.consequence) for event in failures)


def lie(modules: Modules, region: str, *, made: bytes) -> None:
    """Let a region wrap another KEK than the one that it makes or is given."""
    modules.lies[NAMES[region]] = made


def test_a_region_whose_new_kek_opens_to_another_makes_no_key(modules: Modules) -> None:
    lie(modules, "zurich", made=OTHER_KEK)
    kms = modules.kms()
    wrapped = kms.encrypt_key(KEY)
    assert sorted(kms.regions_of(wrapped)) == ["basel", "bern"]
    assert reported(modules) == [
        ("zurich", "Encrypt", f"{ANOTHER}", LEFT_OUT),
        ("zurich", "GenerateDataKey", f"{ANOTHER}", NEXT),
    ]
    assert not kms.last_answers()["zurich"].ok
    for region in ("basel", "bern"):
        assert modules.kms().decrypt_key_in(region, wrapped) == KEY


def test_a_copy_that_opens_to_another_kek_is_left_out(modules: Modules) -> None:
    lie(modules, "bern", made=OTHER_KEK)
    kms = modules.kms()
    wrapped = kms.encrypt_key(KEY)
    assert sorted(kms.regions_of(wrapped)) == ["basel", "zurich"]
    assert reported(modules) == [("bern", "Encrypt", ANOTHER, LEFT_OUT)]
    assert not kms.last_answers()["bern"].ok

    modules.lies.clear()
    assert sorted(kms.regions_of(kms.rewrap(wrapped))) == ["basel", "bern", "zurich"]


def test_with_every_region_lying_no_key_is_made(modules: Modules) -> None:
    for region in NAMES:
        lie(modules, region, made=OTHER_KEK)
    with pytest.raises(KMSError, match="no region could make a data key: zurich: DecryptionError: it opens") as caught:
        modules.kms().encrypt_key(KEY)
    assert list(caught.value.failures) == list(NAMES)
    assert holding_frames(caught.value, KEK, OTHER_KEK) == []
    assert holds(f"{caught.value!r} {modules.events}", KEK, OTHER_KEK, KEY) == []


@pytest.mark.parametrize("region", NAMES)
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError("no"), "it does not open what it has just wrapped: PermissionError: no"),
        (SilentError("nothing"), "nothing"),
    ],
    ids=["refuses", "is silent"],
)
def test_a_region_that_wraps_and_does_not_unwrap_is_left_out(
    modules: Modules, region: str, error: Exception, reason: str
) -> None:
    def fail_to_unwrap(name: str, what: str) -> None:
        if (name, what) == (NAMES[region], "unwrap"):
            raise error

    modules.meanwhile = fail_to_unwrap
    kms = modules.kms()
    wrapped = kms.encrypt_key(KEY)
    assert sorted(kms.regions_of(wrapped)) == sorted(NAMES.keys() - {region})
    assert (region, "Encrypt", reason, LEFT_OUT) in reported(modules)
    assert {name for name, *_ in reported(modules)} == {region}
    asked = modules.asked_regions().count(region)
    # Who was silent is not asked again; who refused was asked to make, to open, to wrap and to open.
    assert asked == (4 if region == "zurich" and isinstance(error, PermissionError) else 2)


@pytest.mark.parametrize("blob", [b"garbage", Cipher(bytes(32)).seal(KEK)], ids=["garbage", "another master key's"])
def test_a_blob_that_does_not_open_is_no_copy(modules: Modules, blob: Any) -> None:
    modules.answers[NAMES["bern"]] = (KEK, blob)
    wrapped = modules.kms().encrypt_key(KEY)
    assert sorted(modules.kms().regions_of(wrapped)) == ["basel", "zurich"]
    assert [(region, operation) for region, operation, *_ in reported(modules)] == [("bern", "Encrypt")]


class _LongWinded(Module):
    """One that wraps and opens as it should, but at such a length."""

    def wrap(self, kek: bytes) -> bytes:
        return super().wrap(kek).ljust(MAX_CIPHERTEXT_LENGTH + 1, b"\0")

    def make_kek(self) -> tuple[bytes, bytes]:
        return KEK, self.wrap(KEK)

    def unwrap(self, wrapped: bytes) -> bytes:
        return super().unwrap(wrapped[:SEALED_KEY_LENGTH])


@pytest.mark.parametrize("region", NAMES)
def test_a_copy_that_is_too_long_for_a_record_is_none(modules: Modules, region: str) -> None:
    def make_key(name: str, key: str) -> Module:
        return (_LongWinded if name == region else Module)(key, modules)

    kms = MultiRegionKMS(NAMES, "zurich", make_key, on_event=modules.events.append)
    wrapped = kms.encrypt_key(KEY)
    assert sorted(kms.regions_of(wrapped)) == sorted(NAMES.keys() - {region})
    assert kms.decrypt_key(wrapped) == KEY
    reason = "its answer holds a ciphertext of 6145 bytes, and records hold up to 6144"
    assert (region, "Encrypt", reason, LEFT_OUT) in reported(modules)


def test_whether_a_region_can_wrap_is_whether_it_opens_what_it_wraps(modules: Modules) -> None:
    lie(modules, "bern", made=OTHER_KEK)
    modules.kms().check_wrap("zurich")
    with pytest.raises(KMSError, match=f"of region bern can't wrap a key: DecryptionError: {ANOTHER}"):
        modules.kms().check_wrap("bern")


def test_rewrap_takes_no_copy_that_opens_to_another_kek(modules: Modules) -> None:
    wrapped = modules.kms({"zurich": NAMES["zurich"]}).encrypt_key(KEY)
    lie(modules, "bern", made=OTHER_KEK)
    with pytest.raises(KMSError, match=f"not every region could wrap the system key: bern: DecryptionError: {ANOTHER}"):
        modules.kms().rewrap(wrapped)
    moved = modules.kms().rewrap(wrapped, allow_missing=True)
    assert sorted(modules.kms().regions_of(moved)) == ["basel", "zurich"]


@pytest.mark.parametrize("what", ["wrap", "unwrap"])
def test_a_new_key_is_wrapped_and_opened_in_the_other_regions_at_the_same_time(modules: Modules, what: str) -> None:
    """Each waits for the other: one after the other would never end."""
    modules.meet(what, "bern", "basel")
    wrapped = modules.kms(deadline=60).encrypt_key(KEY)
    assert sorted(modules.kms().regions_of(wrapped)) == ["basel", "bern", "zurich"]


def test_rewrap_opens_the_copies_of_several_regions_at_the_same_time(modules: Modules) -> None:
    wrapped = modules.kms().encrypt_key(KEY)
    modules.meet("unwrap", "bern", "basel")
    assert modules.kms(deadline=60).rewrap(wrapped) == wrapped
