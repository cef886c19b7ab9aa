"""Many keys at once: a few calls, and nothing that a single load would not have done as well."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from django_asherah.envelope.interfaces import CacheMissed
from django_asherah.envelope.records import KeyMeta, decode_row
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


def test_more_than_the_cache_holds_are_loaded_one_by_one_later() -> None:
    world = World(cache_size=4)
    records = {name: world.factory.get_session(name).encrypt(name.encode()) for name in PARTITIONS}
    factory = world.new_process()
    factory.load_keys(metas_of(records))
    assert len(factory.intermediate_keys) == 4
    assert opened(factory, records) == [name.encode() for name in PARTITIONS]
