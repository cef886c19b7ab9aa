"""The crypto policy."""

from __future__ import annotations

import pytest

from django_asherah.envelope.policy import CryptoPolicy


def test_a_policy_can_not_be_changed() -> None:
    with pytest.raises(AttributeError):
        CryptoPolicy().expire_after = 1  # type: ignore[misc]


def test_defaults_are_asherahs() -> None:
    assert CryptoPolicy() == CryptoPolicy(90 * 24 * 3600, 3600, 60)


@pytest.mark.parametrize(("now", "created"), [(0.0, 0), (59.999, 0), (60.0, 60), (1_700_000_039.9, 1_700_000_000 - 20)])
def test_created_is_rounded_down_to_the_minute(now: float, created: int) -> None:
    assert CryptoPolicy().created_at(now) == created


def test_a_key_is_never_born_expired() -> None:
    policy = CryptoPolicy(expire_after=7)
    for now in range(100, 200):
        assert now <= policy.expires_at(policy.created_at(now))


def test_a_precision_of_a_second_keeps_the_second() -> None:
    assert [CryptoPolicy(created_precision=1).created_at(now) for now in (12.9, 13.9)] == [12, 13]


def test_a_life_of_less_than_a_second_is_one_second_precise() -> None:
    assert CryptoPolicy(expire_after=0.5).created_at(13.9) == 13
