"""Many keys at once: a few calls, and nothing that a single load would not have done as well."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from django_asherah.envelope.interfaces import CacheMissed, StaleKeyKept
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, decode_row
from django_asherah.envelope.session import SessionFactory
from django_asherah.exceptions import DecryptionError, KeyNotFoundError, KMSError, MetastoreError
from tests.envelope.fakes import SK_ID, START, World

PARTITIONS = [f"tenant-{number}" for number in range(20)]
SK = KeyMeta(SK_ID, START)


@pytest.fixture
def records(world: World) -> dict[str, str]:
    """One record of each partition, and a process that holds no key."""
    written = {name: world.factory.get_session(name).encrypt(name.encode()) for name in PARTITIONS}
    world.factory = world.new_process()
    world.taken_calls()
    world.events.clear()
    return written


def metas_of(records: dict[str, str]) -> list[KeyMeta]:
    return [decode_row(text).key.parent_key_meta for text in records.values()]


def opened(factory: SessionFactory, records: dict[str, str]) -> list[bytes]:
    return [factory.get_session(name).decrypt(text) for name, text in records.items()]


def test_twenty_keys_cost_two_calls_and_one_unwrap(world: World, records: dict[str, str]) -> None:
    metas = metas_of(records)
    world.factory.load_keys([*metas, *metas])
    assert world.taken_calls() == {"load_many": 2, "unwrap": 1}
    assert world.events == [CacheMissed(meta.key_id) for meta in [*metas, SK]]

    assert opened(world.factory, records) == [name.encode() for name in PARTITIONS]
    assert world.taken_calls() == {}


def test_cached_keys_are_not_asked_for(world: World, records: dict[str, str]) -> None:
    metas = metas_of(records)
    world.factory.load_keys(metas[:5])
    world.taken_calls()
    world.factory.load_keys(metas[:5])
    assert world.taken_calls() == {}
    world.factory.load_keys(metas)
    assert world.taken_calls() == {"load_many": 1}


def test_they_are_checked_again_when_they_are_due(world: World, records: dict[str, str]) -> None:
    world.factory.load_keys(metas_of(records))
    world.taken_calls()
    world.clock.now += world.policy.revoke_check_interval
    assert len(world.factory.load_keys(metas_of(records))) == len(PARTITIONS)
    assert world.taken_calls() == {"load_many": 1}  # Their system key is not needed: they are open.


def test_a_key_that_is_not_there_is_passed_over_and_named_when_it_is_needed(
    world: World, records: dict[str, str]
) -> None:
    lost = metas_of(records)[3]
    del world.metastore.records[lost]
    world.factory.load_keys(metas_of(records))
    with pytest.raises(KeyNotFoundError, match=lost.key_id):
        opened(world.factory, records)


def test_a_key_that_does_not_open_keeps_no_other_from_being_loaded(world: World, records: dict[str, str]) -> None:
    bad = metas_of(records)[3]
    found = world.metastore.records[bad]
    world.metastore.records[bad] = replace(found, key=found.key[:-1] + bytes([found.key[-1] ^ 1]))
    world.factory.load_keys(metas_of(records))
    world.taken_calls()

    with pytest.raises(DecryptionError, match=bad.key_id):
        world.factory.get_session(PARTITIONS[3]).decrypt(records.pop(PARTITIONS[3]))
    world.taken_calls()
    assert len(opened(world.factory, records)) == len(PARTITIONS) - 1
    assert world.taken_calls() == {}


def test_a_kms_that_is_down_is_asked_once_for_all_of_them(world: World, records: dict[str, str]) -> None:
    world.kms.down = True
    world.factory.load_keys(metas_of(records))
    assert world.taken_calls() == {"load_many": 2, "unwrap": 1}
    with pytest.raises(KMSError):
        opened(world.factory, records)

    world.kms.down = False
    assert opened(world.factory, records) == [name.encode() for name in PARTITIONS]


def test_a_metastore_that_is_down_is_an_error(world: World, records: dict[str, str]) -> None:
    world.metastore.down = True
    with pytest.raises(MetastoreError):
        world.factory.load_keys(metas_of(records))


def test_what_is_no_intermediate_key_is_passed_over(world: World, records: dict[str, str]) -> None:
    world.factory.load_keys([SK])
    assert world.taken_calls() == {"load_many": 1}
    assert len(world.factory.intermediate_keys) == 0


@pytest.mark.parametrize("cached", [0, 4])
def test_all_are_returned_though_the_cache_holds_but_four(cached: int) -> None:
    world = World(cache_size=4)
    records = {name: world.factory.get_session(name).encrypt(name.encode()) for name in PARTITIONS}
    factory = world.new_process()
    factory.load_keys(metas_of(records)[:cached])
    world.taken_calls()

    keys = factory.load_keys(metas_of(records))

    assert list(keys) == metas_of(records)
    assert len(factory.intermediate_keys) == 4
    assert world.taken_calls()["load_many"] == 2 - bool(cached)
    read = [factory.get_session(name).decrypt(record, keys) for name, record in records.items()]
    assert read == [name.encode() for name in PARTITIONS]
    assert world.taken_calls() == {}


def test_more_than_a_thousand_are_loaded_a_thousand_at_a_time(world: World) -> None:
    names = [f"p{number}" for number in range(2_001)]
    metas = [key.meta for key in world.factory.current_keys(names).values()]
    cold = world.new_process()
    world.taken_calls()
    assert len(cold.load_keys(metas)) == 2_001
    assert world.taken_calls() == {"load_many": 4, "unwrap": 1}  # Three for them, and one for their system key.


def test_none_cost_nothing(world: World) -> None:
    assert world.factory.load_keys([]) == {}
    assert world.taken_calls() == {}


class TestNotAskedForAgain:
    """What can't be loaded costs a page one query in ten seconds."""

    def test_a_key_that_is_not_there(self, world: World, records: dict[str, str]) -> None:
        lost, *others = metas_of(records)
        del world.metastore.records[lost]
        assert list(world.factory.load_keys([lost, *others])) == others
        world.taken_calls()

        world.clock.now += 9.9
        assert list(world.factory.load_keys([lost, *others])) == others
        assert world.taken_calls() == {}
        world.clock.now += 0.1
        assert list(world.factory.load_keys([lost, *others])) == others
        assert world.taken_calls() == {"load_many": 1}

    def test_a_key_that_does_not_open(self, world: World, records: dict[str, str]) -> None:
        bad = metas_of(records)[3]
        found = world.metastore.records[bad]
        world.metastore.records[bad] = replace(found, key=bytes(60))
        assert bad not in world.factory.load_keys(metas_of(records))
        world.taken_calls()
        assert bad not in world.factory.load_keys(metas_of(records))
        assert world.taken_calls() == {}

    def test_keys_whose_kms_is_down(self, world: World, records: dict[str, str]) -> None:
        world.kms.down = True
        assert world.factory.load_keys(metas_of(records)) == {}
        assert world.taken_calls() == {"load_many": 2, "unwrap": 1}
        assert world.factory.load_keys(metas_of(records)) == {}
        assert world.taken_calls() == {}

    def test_other_keys_of_a_system_key_that_no_kms_unwraps_do_not_ask_it_again(
        self, world: World, records: dict[str, str]
    ) -> None:
        world.kms.down = True
        world.factory.load_keys(metas_of(records)[:5])
        world.taken_calls()
        assert world.factory.load_keys(metas_of(records)) == {}
        assert world.taken_calls() == {"load_many": 1}

    def test_keys_of_a_metastore_that_is_down_for_the_second_time_are_passed_over(
        self, world: World, records: dict[str, str]
    ) -> None:
        (cached,) = world.factory.load_keys(metas_of(records)[:1])
        world.metastore.down = True
        with pytest.raises(MetastoreError):
            world.factory.load_keys(metas_of(records))
        world.taken_calls()
        assert list(world.factory.load_keys(metas_of(records))) == [cached]
        assert world.taken_calls() == {}

    def test_whoever_needs_one_asks_at_once_and_then_all_have_it(self, world: World, records: dict[str, str]) -> None:
        world.kms.down = True
        world.factory.load_keys(metas_of(records))
        world.kms.down = False
        name, record = next(iter(records.items()))
        assert world.factory.get_session(name).decrypt(record) == name.encode()
        world.taken_calls()
        assert list(world.factory.load_keys(metas_of(records))) == metas_of(records)[:1]
        assert world.taken_calls() == {}

    def test_to_forget_every_key_forgets_these_too(self, world: World, records: dict[str, str]) -> None:
        world.kms.down = True
        world.factory.load_keys(metas_of(records))
        world.kms.down = False
        world.factory.clear()
        assert len(world.factory.load_keys(metas_of(records))) == len(PARTITIONS)

    def test_of_very_many_the_newest_are_remembered(self) -> None:
        world = World(cache_size=10)
        lost = [KeyMeta(f"_IK_p{number}_svc_prod", START) for number in range(1_000)]
        world.factory.load_keys(lost)
        world.taken_calls()
        assert world.factory.load_keys(lost[-10:]) == {}
        assert world.taken_calls() == {}
        world.factory.load_keys(lost[-11:])
        assert world.taken_calls() == {"load_many": 1}


class TestDueForTheirCheck:
    def test_they_stay_in_use_while_the_metastore_is_down(self, world: World, records: dict[str, str]) -> None:
        keys = world.factory.load_keys(metas_of(records))
        world.clock.now += world.policy.revoke_check_interval
        world.metastore.down = True
        world.events.clear()

        assert world.factory.load_keys(metas_of(records)) == keys

        kept = [event.meta for event in world.events if isinstance(event, StaleKeyKept)]
        assert kept == metas_of(records)
        assert opened(world.factory, records) == [name.encode() for name in PARTITIONS]

    def test_those_that_are_cached_stay_in_use_if_another_can_not_be_loaded(
        self, world: World, records: dict[str, str]
    ) -> None:
        world.factory.load_keys(metas_of(records)[1:])
        world.clock.now += world.policy.revoke_check_interval
        world.metastore.down = True
        with pytest.raises(MetastoreError):
            world.factory.load_keys(metas_of(records))
        world.taken_calls()
        assert list(world.factory.load_keys(metas_of(records))) == metas_of(records)[1:]
        assert world.taken_calls() == {}

    def test_no_kms_is_needed(self, world: World, records: dict[str, str]) -> None:
        keys = world.factory.load_keys(metas_of(records))
        world.factory.system_keys.clear()
        world.clock.now += world.policy.revoke_check_interval
        world.kms.down = True
        assert world.factory.load_keys(metas_of(records)) == keys

    def test_a_revocation_is_noticed(self, world: World, records: dict[str, str]) -> None:
        world.factory.load_keys(metas_of(records))
        revoked = metas_of(records)[2]
        world.metastore.revoke(revoked)
        world.clock.now += world.policy.revoke_check_interval
        assert world.factory.load_keys(metas_of(records))[revoked].record.revoked
        assert decode_row(world.factory.get_session(PARTITIONS[2]).encrypt(b"")).key.parent_key_meta != revoked

    def test_one_thread_checks_while_the_others_go_on(self, world: World, records: dict[str, str]) -> None:
        keys = world.factory.load_keys(metas_of(records))
        world.clock.now += world.policy.revoke_check_interval
        asked, answer = threading.Event(), threading.Event()
        load_many = world.metastore.load_many

        def slow_load_many(metas: Sequence[KeyMeta]) -> dict[KeyMeta, EnvelopeKeyRecord]:
            asked.set()
            answer.wait(30)
            return load_many(metas)

        world.metastore.load_many = slow_load_many  # type: ignore[method-assign]
        world.taken_calls()
        with ThreadPoolExecutor(1) as pool:
            checking = pool.submit(world.factory.load_keys, metas_of(records))
            assert asked.wait(30)
            assert world.factory.load_keys(metas_of(records)) == keys
            answer.set()
            assert checking.result(30) == keys
        assert world.taken_calls() == {"load_many": 1}


def test_an_uncommitted_key_is_read_again_before_every_use(world: World) -> None:
    world.metastore.begin()
    meta = decode_row(world.factory.get_session("p").encrypt(b"")).key.parent_key_meta
    world.taken_calls()
    assert list(world.factory.load_keys([meta])) == [meta]
    assert world.taken_calls() == {"load_many": 1}
    world.metastore.roll_back()
    assert world.factory.load_keys([meta]) == {}
