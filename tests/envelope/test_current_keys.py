"""The keys of many partitions at once: a few calls, and each is the key that one alone would have got."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from django_asherah.envelope.interfaces import CacheMissed, KeyCreated, KeyPassedOver, StaleKeyKept
from django_asherah.envelope.policy import MAX_SKEW
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta
from django_asherah.envelope.session import SessionFactory
from django_asherah.exceptions import EncryptionError, InvalidRecordError, KMSError, MetastoreError
from tests.envelope.fakes import DAY, SK_ID, START, World
from tests.lifecycle.stores import OwnMetastore

PARTITIONS = [f"tenant-{number:02}" for number in range(20)]
SK = KeyMeta(SK_ID, START)


def meta_of(partition: str, created: int = START) -> KeyMeta:
    return KeyMeta(f"_IK_{partition}_svc_prod", created)


def metas(factory: SessionFactory, partitions: Sequence[str] = PARTITIONS) -> dict[str, KeyMeta]:
    return {name: key.meta for name, key in factory.current_keys(partitions).items()}


NEW = {name: meta_of(name) for name in PARTITIONS}


def at_once(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run each in a thread of its own, all from the same moment on; return what they return. Fails if they hang."""
    barrier, results = threading.Barrier(len(works)), [None] * len(works)

    def run(number: int) -> None:
        barrier.wait(30)
        results[number] = works[number]()

    # Daemons: threads that wait for each other would keep the test run from ending.
    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "they wait for each other"
    return results


class TestMade:
    def test_twenty_new_keys_cost_a_look_and_a_store(self, world: World) -> None:
        assert metas(world.factory) == NEW
        assert world.taken_calls() == {"load_latest_many": 1, "load_latest": 1, "wrap": 1, "store": 1, "store_many": 1}
        missed = [*(meta.key_id for meta in NEW.values()), SK_ID]
        assert world.events == [
            *(CacheMissed(key_id) for key_id in missed),
            KeyCreated(SK),
            *(KeyCreated(meta) for meta in NEW.values()),
        ]
        assert {record.parent_key_meta for meta, record in world.metastore.records.items() if meta != SK} == {SK}

    def test_then_they_cost_nothing_and_are_what_writes_use(self, world: World) -> None:
        keys = world.factory.current_keys(PARTITIONS)
        world.taken_calls()
        assert world.factory.current_keys(reversed(PARTITIONS)) == keys
        assert {name: world.factory.get_session(name).newest_key() for name in PARTITIONS} == keys
        assert world.taken_calls() == {}

    def test_what_they_seal_another_process_opens(self, world: World) -> None:
        keys = world.factory.current_keys(PARTITIONS)
        records = {name: world.factory.get_session(name).encrypt(name.encode(), keys[name]) for name in PARTITIONS}
        cold = world.new_process()
        assert [cold.get_session(name).decrypt(record) for name, record in records.items()] == [
            name.encode() for name in PARTITIONS
        ]

    def test_all_are_returned_though_the_cache_holds_but_four(self) -> None:
        world = World(cache_size=4)
        assert metas(world.factory) == NEW
        assert len(world.factory.intermediate_keys) == 4
        assert len(world.factory.sessions) == 4

    def test_more_than_a_thousand_are_made_a_thousand_at_a_time(self, world: World) -> None:
        assert len(world.factory.current_keys(f"p{number}" for number in range(2_001))) == 2_001
        calls = world.taken_calls()
        assert (calls["load_latest_many"], calls["store_many"], calls["wrap"]) == (3, 3, 1)

    def test_none_cost_nothing(self, world: World) -> None:
        assert world.factory.current_keys([]) == {}
        assert world.taken_calls() == {}

    def test_a_partition_that_is_named_twice_gets_one_key(self, world: World) -> None:
        assert metas(world.factory, ["p", "q", "p"]) == {"p": meta_of("p"), "q": meta_of("q")}
        assert len(world.metastore.records) == 3

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            ("x" * 300, rf"^partition '{'x' * 40}…' of 300 characters makes a key id of 313 characters"),
            ("a\0b", r"^a partition must not hold NUL or lone surrogates, as 'a\\x00b' does"),
            ("\ud800", r"as '\\ud800' does"),
            ("", "^a partition must not be empty"),
            (7, "^a partition must be a str, not int"),
        ],
    )
    def test_one_that_is_no_partition_among_many_is_named_and_nothing_is_made(
        self, world: World, bad: Any, message: str
    ) -> None:
        with pytest.raises(EncryptionError, match=message):
            world.factory.current_keys([*PARTITIONS[:10], bad, *PARTITIONS[10:]])
        assert world.taken_calls() == {}
        assert world.metastore.records == {}


class TestFound:
    @pytest.fixture(autouse=True)
    def made(self, world: World) -> None:
        world.factory.current_keys(PARTITIONS)
        world.factory = world.new_process()
        world.taken_calls()
        world.events.clear()

    def test_another_process_finds_them_with_one_look(self, world: World) -> None:
        assert metas(world.factory) == NEW
        assert world.taken_calls() == {"load_latest_many": 1, "load": 1, "unwrap": 1}
        assert [event for event in world.events if isinstance(event, KeyCreated)] == []

    def test_only_what_is_not_cached_is_looked_for(self, world: World) -> None:
        world.factory.current_keys(PARTITIONS[:15])
        world.events.clear()
        assert metas(world.factory, [*PARTITIONS, "new"]) == {**NEW, "new": meta_of("new")}
        missed = [event.key_id for event in world.events if isinstance(event, CacheMissed)]
        assert missed == [*(meta_of(name).key_id for name in [*PARTITIONS[15:], "new"]), SK_ID]

    def test_a_revoked_one_among_them_alone_is_replaced_by_a_later_one(self, world: World) -> None:
        world.metastore.revoke(meta_of("tenant-07"))
        assert metas(world.factory) == {**NEW, "tenant-07": meta_of("tenant-07", START + 1)}

    def test_one_from_a_fast_clock_that_is_revoked_is_replaced_by_a_later_one(self, world: World) -> None:
        fast = meta_of("tenant-07", START + MAX_SKEW)
        world.metastore.records[fast] = replace(world.metastore.records[meta_of("tenant-07")], created=fast.created)
        world.metastore.revoke(fast)
        assert metas(world.factory)["tenant-07"] == meta_of("tenant-07", START + MAX_SKEW + 1)

    def test_one_from_the_future_is_passed_over_and_told(self, world: World) -> None:
        fast = meta_of("tenant-07", START + MAX_SKEW + 1)
        world.metastore.records[fast] = replace(world.metastore.records[meta_of("tenant-07")], created=fast.created)
        assert metas(world.factory) == NEW
        assert [event.key_id for event in world.events if isinstance(event, KeyPassedOver)] == [fast.key_id]

    def test_expired_ones_are_all_replaced_and_their_system_key_too(self, world: World) -> None:
        world.clock.now += 90 * DAY + 1
        made = START + 90 * DAY
        assert metas(world.factory) == {name: meta_of(name, made) for name in PARTITIONS}
        assert world.metastore.records[meta_of("tenant-07", made)].parent_key_meta == KeyMeta(SK_ID, made)

    def test_the_others_stay_if_one_is_expired(self, world: World) -> None:
        old = meta_of("old", START - 91 * DAY)
        sealed = world.metastore.records[meta_of("tenant-00")]
        world.metastore.records[old] = replace(sealed, created=old.created)
        assert metas(world.factory, [*PARTITIONS, "old"]) == {**NEW, "old": meta_of("old")}

    def test_all_under_a_revoked_system_key_are_replaced(self, world: World) -> None:
        world.metastore.revoke(SK)
        assert metas(world.factory) == {name: meta_of(name, START + 1) for name in PARTITIONS}
        assert world.taken_calls()["wrap"] == 1

    def test_one_that_does_not_open_is_replaced(self, world: World) -> None:
        bad = meta_of("tenant-07")
        world.metastore.records[bad] = replace(world.metastore.records[bad], key=bytes(60))
        assert metas(world.factory) == {**NEW, "tenant-07": meta_of("tenant-07", START + 1)}


class TestRaces:
    def test_whoever_stored_first_has_the_key(self, world: World) -> None:
        other = world.new_process()
        load_latest_many = world.metastore.load_latest_many

        def overtaken(key_ids: Sequence[str]) -> dict[str, EnvelopeKeyRecord]:
            found = load_latest_many(key_ids)
            world.metastore.load_latest_many = load_latest_many  # type: ignore[method-assign]
            theirs.update(other.current_keys(PARTITIONS[5:15]))
            return found

        theirs: dict[str, Any] = {}
        world.metastore.load_latest_many = overtaken  # type: ignore[method-assign]
        ours = world.factory.current_keys(PARTITIONS)

        assert {name: key.meta for name, key in ours.items()} == NEW
        assert {key.record.key for key in theirs.values()} < {key.record.key for key in ours.values()}
        assert len(world.metastore.records) == len(PARTITIONS) + 1
        sealed = other.get_session("tenant-07").encrypt(b"x")
        assert world.factory.get_session("tenant-07").decrypt(sealed) == b"x"

    def test_a_key_that_is_retired_as_soon_as_it_is_stored_is_given_up(self, world: World) -> None:
        class Retiring(OwnMetastore):
            def store(self, key_id: str, record: EnvelopeKeyRecord) -> bool:
                if key_id == SK_ID:
                    return super().store(key_id, record)
                super().store(key_id, replace(record, revoked=True))
                return False

        factory = SessionFactory("svc", "prod", Retiring(), world.kms, clock=world.clock, timer=world.clock)
        with pytest.raises(EncryptionError, match="no valid key _IK_p_svc_prod could be stored in 10 attempts"):
            factory.current_keys(["p", "q"])

    def test_a_metastore_that_neither_stores_nor_holds_a_key_is_named(self, world: World) -> None:
        world.metastore.store_many = lambda records: set()  # type: ignore[method-assign]
        with pytest.raises(MetastoreError, match=f"refused key _IK_p_svc_prod created {START}, yet holds none"):
            world.factory.current_keys(["p"])

    def test_threads_that_want_the_same_partitions_in_any_order_make_each_once(self, world: World) -> None:
        names = [f"p{number}" for number in range(1_500)]  # More than are locked at once.
        orders = [names, names[::-1], names[700:] + names[:700], names[::2] + names[1::2]] * 4
        results = at_once([partial(world.factory.current_keys, order) for order in orders])
        assert {tuple(sorted((name, key.meta) for name, key in result.items())) for result in results} == {
            tuple(sorted((name, meta_of(name)) for name in names))
        }
        assert len(world.metastore.records) == len(names) + 1
        assert sum(isinstance(event, KeyCreated) for event in world.events) == len(names) + 1

    def test_readers_and_writers_of_the_same_keys_do_not_wait_for_each_other(self, world: World) -> None:
        keys = world.factory.current_keys(PARTITIONS)
        loaded = [key.meta for key in keys.values()]
        cold = world.new_process()

        def work(number: int) -> int:
            if number % 3 == 0:
                return len(cold.load_keys(loaded[::-1]))
            if number % 3 == 1:
                return len(cold.current_keys(PARTITIONS))
            return len([cold.get_session(name).newest_key() for name in PARTITIONS[number:] + PARTITIONS[:number]])

        assert at_once([partial(work, number) for number in range(12)]) == [20] * 12

    def test_a_listener_that_encrypts_in_one_of_them_does_not_wait_for_itself(self, world: World) -> None:
        heard: list[Any] = []

        def listen(event: Any) -> None:
            if isinstance(event, KeyCreated) and not heard:
                heard.append(event)
                factory.get_session("tenant-19").encrypt(b"a key was made")

        factory = SessionFactory(
            "svc", "prod", world.metastore, world.kms, clock=world.clock, timer=world.clock, on_event=listen
        )
        assert metas(factory) == NEW
        assert heard


class TestDown:
    def test_a_kms_is_asked_once_and_nothing_is_stored(self, world: World) -> None:
        world.kms.down = True
        with pytest.raises(KMSError):
            world.factory.current_keys(PARTITIONS)
        assert world.taken_calls()["wrap"] == 1
        assert world.metastore.records == {}

    def test_keys_that_are_cached_and_due_stay_in_use_without_the_metastore(self, world: World) -> None:
        keys = world.factory.current_keys(PARTITIONS)
        world.clock.now += world.policy.revoke_check_interval
        world.metastore.down = True
        world.events.clear()
        assert world.factory.current_keys(PARTITIONS) == keys
        assert {type(event) for event in world.events} == {CacheMissed, StaleKeyKept}
        world.taken_calls()
        assert world.factory.current_keys(PARTITIONS) == keys
        assert world.taken_calls() == {}

    def test_a_new_one_among_them_fails_and_the_others_go_on(self, world: World) -> None:
        keys = world.factory.current_keys(PARTITIONS)
        world.metastore.down = True
        with pytest.raises(MetastoreError):
            world.factory.current_keys([*PARTITIONS, "new"])
        assert world.factory.current_keys(PARTITIONS) == keys

    def test_a_revocation_is_not_missed_because_the_kms_is_down(self, world: World) -> None:
        world.factory.current_keys(PARTITIONS)
        world.clock.now += world.policy.revoke_check_interval
        world.metastore.revoke(meta_of("tenant-07"))
        world.metastore.revoke(SK)
        world.kms.down = True
        with pytest.raises(KMSError):
            world.factory.current_keys(PARTITIONS)

    def test_a_metastore_that_fails_halfway_has_made_the_first_thousand_and_a_second_call_makes_the_rest(
        self, world: World
    ) -> None:
        names = [f"p{number}" for number in range(1_500)]
        store_many, stored = world.metastore.store_many, []

        def store_once(records: Mapping[KeyMeta, EnvelopeKeyRecord]) -> set[KeyMeta]:
            if stored:
                raise MetastoreError("the disk is full")
            stored.extend(records)
            return store_many(records)

        world.metastore.store_many = store_once  # type: ignore[method-assign]
        with pytest.raises(MetastoreError, match="the disk is full"):
            world.factory.current_keys(names)
        assert {meta for meta in world.metastore.records if meta != SK} == set(stored)
        assert len(stored) == 1_000

        world.metastore.store_many = store_many  # type: ignore[method-assign]
        assert metas(world.factory, names) == {name: meta_of(name) for name in names}
        assert len(world.metastore.records) == 1_501


class TestTransactions:
    def test_what_a_transaction_made_is_looked_at_before_every_use(self, world: World) -> None:
        world.metastore.begin()
        keys = world.factory.current_keys(PARTITIONS)
        assert not any(key.is_committed for key in keys.values())
        world.taken_calls()
        assert world.factory.current_keys(PARTITIONS) == keys
        assert world.taken_calls()["load_latest_many"] == 1

        world.metastore.commit()
        assert world.factory.current_keys(PARTITIONS) == keys
        assert all(key.is_committed for key in keys.values())

    def test_what_rolled_back_is_never_used_again(self, world: World) -> None:
        world.metastore.begin()
        undone = world.factory.current_keys(PARTITIONS)
        world.metastore.roll_back()
        kept = world.factory.current_keys(PARTITIONS)
        assert not {key.record.key for key in undone.values()} & {key.record.key for key in kept.values()}
        assert {meta: record.key for meta, record in world.metastore.records.items() if meta != SK} == {
            key.meta: key.record.key for key in kept.values()
        }


class TestForeignMetastores:
    """One that knows a key at a time serves as well."""

    def test_keys_are_made_and_found_one_by_one(self, world: World) -> None:
        metastore = OwnMetastore()
        first, second = (
            SessionFactory("svc", "prod", metastore, world.kms, clock=world.clock, timer=world.clock) for _ in range(2)
        )
        assert metas(first) == NEW
        assert metas(second) == NEW
        assert len(metastore.texts) == len(PARTITIONS) + 1
        assert list(second.load_keys(NEW.values())) == list(NEW.values())

    def test_a_latest_record_that_can_not_be_read_is_an_error_and_no_key_is_made(self, world: World) -> None:
        metastore = OwnMetastore()
        metastore.texts[meta_of("tenant-07")] = "{}"
        factory = SessionFactory("svc", "prod", metastore, world.kms, clock=world.clock, timer=world.clock)
        with pytest.raises(InvalidRecordError):
            factory.current_keys(PARTITIONS)
        assert list(metastore.texts) == [meta_of("tenant-07")]
