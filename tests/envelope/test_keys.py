"""An opened key: until when it may be used."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from django_asherah.envelope.aead import Cipher
from django_asherah.envelope.clocks import Moment
from django_asherah.envelope.keys import BEFORE_EVERY_USE, CryptoKey
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta

NOW = Moment(wall=0.0, timer=0.0)
RECORD = EnvelopeKeyRecord(created=1, key=bytes(60))


@pytest.fixture
def key() -> CryptoKey:
    return CryptoKey(KeyMeta("a", 1), RECORD, Cipher(bytes(32)))


def test_a_key_at_which_nobody_has_looked_may_not_be_used(key: CryptoKey) -> None:
    assert not key.is_committed
    assert not key.is_trusted(0.0)
    assert not key.takes_writes(0.0)
    assert not key.is_valid(0.5)
    assert not key.recently_used


def test_it_is_trusted_strictly_before_its_check(key: CryptoKey) -> None:
    key.trust_until(100.0)
    assert key.check_at == 100.0
    assert [key.is_trusted(now) for now in (0.0, 99.9, 100.0, 100.1)] == [True, True, False, False]
    assert key.is_committed


def test_a_record_that_may_be_rolled_back_is_checked_before_every_use(key: CryptoKey) -> None:
    key.trust_until(100.0)
    key.trust_until(BEFORE_EVERY_USE)
    assert not key.is_committed
    assert not key.is_trusted(0.0)


def test_it_is_valid_up_to_its_last_moment_and_that_included(key: CryptoKey) -> None:
    key.allow_writes(100.0, 50.0, NOW)
    assert [key.is_valid(now) for now in (50.0, 100.0, 100.1)] == [True, True, False]


@pytest.mark.parametrize(("valid_until", "check_at"), [(100.0, 200.0), (200.0, 100.0)])
def test_it_takes_writes_before_its_check_and_its_end_whichever_is_first(
    key: CryptoKey, valid_until: float, check_at: float
) -> None:
    key.allow_writes(valid_until, check_at, NOW)
    assert [key.takes_writes(now) for now in (99.9, 100.0)] == [True, False]


def test_after_a_look_at_its_record_new_writes_wait_until_they_are_allowed(key: CryptoKey) -> None:
    key.allow_writes(500.0, 500.0, NOW)
    key.trust_until(100.0)
    assert not key.takes_writes(0.0)
    assert key.is_valid(500.0)


@pytest.mark.parametrize(("valid_until", "last"), [(500.0, 159.9), (120.0, 119.9)])
def test_more_trust_is_for_writes_too_but_never_beyond_its_end(key: CryptoKey, valid_until: float, last: float) -> None:
    key.trust_until(100.0)
    key.allow_writes(valid_until, 100.0, NOW)
    key.extend_trust(160.0, NOW)
    assert [key.is_trusted(now) for now in (159.9, 160.0)] == [True, False]
    assert [key.takes_writes(now) for now in (last, last + 0.1)] == [True, False]


def test_a_revoked_record_ends_writes_at_once_and_more_trust_brings_none_back(key: CryptoKey) -> None:
    key.trust_until(100.0)
    key.allow_writes(500.0, 100.0, NOW)
    revoked = replace(RECORD, revoked=True)
    assert key.update_record(revoked)
    assert key.record is revoked
    key.extend_trust(160.0, NOW)
    assert key.is_retired
    assert key.is_trusted(159.9)
    assert not key.takes_writes(0.0)
    assert not key.is_valid(0.5)


def test_a_record_as_it_was_changes_nothing(key: CryptoKey) -> None:
    key.trust_until(100.0)
    key.allow_writes(500.0, 100.0, NOW)
    assert key.update_record(replace(RECORD))
    assert key.takes_writes(99.9)
    assert key.is_valid(500.0)


def test_a_record_of_another_key_is_not_taken(key: CryptoKey) -> None:
    key.allow_writes(500.0, 500.0, NOW)
    assert not key.update_record(EnvelopeKeyRecord(created=1, key=b"?" * 60, revoked=True))
    assert key.record is RECORD
    assert key.is_valid(500.0)


def test_a_wall_clock_that_is_set_back_puts_off_no_check(key: CryptoKey) -> None:
    ahead = Moment(wall=126_230_400.0, timer=50.0)
    key.trust_until(150.0)
    key.allow_writes(ahead.wall + 500.0, 150.0, ahead)
    assert [key.takes_writes(timer) for timer in (149.9, 150.0)] == [True, False]


def test_an_expired_key_in_grace_takes_writes_to_its_end_and_no_longer(key: CryptoKey) -> None:
    key.allow_writes(100.0, 50.0, NOW)
    key.grace_until = 120.0
    key.extend_trust(500.0, Moment(wall=110.0, timer=110.0))
    assert [key.takes_writes(timer) for timer in (119.9, 120.0)] == [True, False]


def test_a_key_whose_row_holds_another_is_for_reading_until_the_row_holds_it_again(key: CryptoKey) -> None:
    key.trust_until(100.0)
    key.allow_writes(500.0, 100.0, NOW)
    key.stop_writes(160.0)
    assert key.is_for_reading
    assert [key.is_trusted(timer) for timer in (159.9, 160.0)] == [True, False]
    assert not key.takes_writes(0.0)
    assert key.is_retired
    assert key.update_record(replace(RECORD))
    assert not key.is_for_reading


def test_a_key_that_must_be_checked_stays_committed(key: CryptoKey) -> None:
    key.trust_until(100.0)
    key.allow_writes(500.0, 100.0, NOW)
    key.require_check(40.0)
    assert [key.is_trusted(timer) for timer in (39.9, 40.0)] == [True, False]
    assert not key.takes_writes(40.0)
    assert key.is_committed
    assert key.is_valid(500.0)
