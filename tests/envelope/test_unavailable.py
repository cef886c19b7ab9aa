"""Keys that could not be loaded a moment ago."""

from __future__ import annotations

import pytest

from django_asherah.envelope.records import KeyMeta
from django_asherah.envelope.unavailable import Unavailable

A, B, C = (KeyMeta(name, 60) for name in "abc")


@pytest.mark.parametrize(("later", "remembered"), [(0.0, True), (9.99, True), (10.0, False), (1e9, False)])
def test_one_is_remembered_for_ten_seconds_of_a_timer(later: float, remembered: bool) -> None:
    unavailable = Unavailable(capacity=2)
    unavailable.add(A, 1e9)
    assert unavailable.has(A, 1e9 + later) is remembered
    assert not unavailable.has(B, 1e9)
    assert not unavailable.has(KeyMeta("a", 61), 1e9)


def test_the_oldest_makes_room() -> None:
    unavailable = Unavailable(capacity=2)
    for meta in (A, B, A, C):
        unavailable.add(meta, 100.0)
    assert [unavailable.has(meta, 100.0) for meta in (A, B, C)] == [True, False, True]
    assert len(unavailable) == 2


def test_all_are_forgotten_at_once() -> None:
    unavailable = Unavailable(capacity=2)
    unavailable.add(A, 100.0)
    unavailable.clear()
    assert not unavailable.has(A, 100.0)
