"""The key cache."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import pytest

from django_asherah.envelope.aead import Cipher
from django_asherah.envelope.cache import KeyCache
from django_asherah.envelope.keys import CryptoKey
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta


def key(key_id: str, created: int = 1) -> CryptoKey:
    return CryptoKey(KeyMeta(key_id, created), EnvelopeKeyRecord(created=created, key=bytes(60)), Cipher(bytes(32)))


def test_keys_are_found_by_id_and_time() -> None:
    cache = KeyCache(10)
    old, new = key("a", 1), key("a", 2)
    cache.put(old)
    cache.put(new)
    assert cache.get(KeyMeta("a", 1)) is old
    assert cache.get(KeyMeta("a", 2)) is new
    assert cache.get(KeyMeta("a", 3)) is None
    assert cache.get(KeyMeta("a1", 1)) is None


def test_the_bound_holds_and_a_key_in_use_stays() -> None:
    cache = KeyCache(3)
    for name in "abc":
        cache.put(key(name))
    assert cache.get(KeyMeta("a", 1)) is not None
    cache.put(key("d"))
    assert len(cache) == 3
    assert cache.get(KeyMeta("a", 1)) is not None
    assert cache.get(KeyMeta("b", 1)) is None


def test_a_key_that_makes_room_is_no_longer_current() -> None:
    cache = KeyCache(1)
    first, second = key("a"), key("b")
    cache.put(first)
    cache.make_current(first)
    first.recently_used = False
    cache.put(second)
    assert cache.current("a") is None
    assert len(cache) == 1


def test_only_a_key_in_the_cache_becomes_current() -> None:
    cache = KeyCache(1)
    stranger = key("a")
    cache.make_current(stranger)
    assert cache.current("a") is None


def test_the_same_key_again_takes_the_place_of_the_old_one() -> None:
    cache = KeyCache(5)
    first, again = key("a"), key("a")
    cache.put(first)
    cache.put(again)
    cache.discard(first)
    assert cache.get(again.meta) is again
    cache.discard(again)
    assert len(cache) == 0


def test_a_key_that_is_discarded_is_no_longer_current() -> None:
    cache = KeyCache(5)
    held = key("a")
    cache.put(held)
    cache.make_current(held)
    cache.discard(held)
    assert cache.current("a") is None


def test_a_key_that_was_just_made_current_counts_as_used() -> None:
    cache = KeyCache(2)
    for name in "ab":
        cache.put(key(name))
    cache.make_current(cache.opened[KeyMeta("a", 1)])
    cache.put(key("c"))
    assert [meta.key_id for meta in cache.opened] == ["a", "c"]


def test_a_key_whose_place_was_taken_is_not_current_any_longer() -> None:
    cache = KeyCache(1)
    first, again = key("a"), key("a")
    cache.put(first)
    cache.make_current(first)
    cache.put(first)
    assert cache.current("a") is first
    cache.put(again)
    assert cache.current("a") is None
    cache.put(key("b"))
    assert cache.newest == {}


def test_clear_forgets_everything() -> None:
    cache = KeyCache(5)
    held = key("a")
    cache.put(held)
    cache.make_current(held)
    cache.clear()
    assert (len(cache), cache.current("a")) == (0, None)


def test_locks_are_one_an_id_and_do_not_pile_up() -> None:
    cache = KeyCache(5)
    lock = cache.loading("a")
    assert cache.loading("a") is lock
    assert cache.loading("b") is not lock
    del lock
    gc.collect()
    assert len(cache._locks.get().loading) == 0


def test_the_bound_holds_under_threads() -> None:
    cache = KeyCache(8)

    def work(number: int) -> None:
        for step in range(300):
            held = key(f"{(number * step) % 40}")
            cache.put(held)
            cache.make_current(held)
            cache.get(KeyMeta(f"{step % 40}", 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(cache) <= 8
    assert set(cache.newest) <= {meta.key_id for meta in cache.opened}


def test_an_opened_key_shows_its_name_alone() -> None:
    assert repr(key("a", 7)) == "<CryptoKey a created 7>"
    with pytest.raises(TypeError):
        key("a").__reduce__()
