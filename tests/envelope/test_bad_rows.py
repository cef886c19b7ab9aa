"""Rows of the key table that new writes must not go by: broken, from the future, or not what a process holds."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from django_asherah.envelope.aead import Cipher
from django_asherah.envelope.interfaces import KeyPassedOver, StaleKeyKept
from django_asherah.envelope.levels import MOST_TRIED, PATIENCE
from django_asherah.envelope.loading import RETRY_AFTER
from django_asherah.envelope.policy import MAX_SKEW, CryptoPolicy
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, decode_row
from django_asherah.envelope.session import SessionFactory
from django_asherah.exceptions import (
    AsherahError,
    DecryptionError,
    InvalidRecordError,
    KMSError,
    PartitionMismatchError,
)
from django_asherah.metastores.key_table import KeyRow
from tests.envelope.fakes import DAY, IK_ID, SK_ID, START, CountingKMS, CountingMetastore, World

SK, IK = KeyMeta(SK_ID, START), KeyMeta(IK_ID, START)
FOUR_YEARS = 4 * 365 * DAY


class JunkMetastore(CountingMetastore):
    """A metastore whose newest rows of some ids are no key records: ``{}``, later than all others."""

    junk: frozenset[str] = frozenset()

    def load_latest(self, key_id: str) -> EnvelopeKeyRecord | None:
        if key_id in self.junk:
            self._called("load_latest")
            raise InvalidRecordError(f"key {key_id} (latest): not an envelope key record")
        return super().load_latest(key_id)

    def load_latest_many(self, key_ids: object) -> dict[str, EnvelopeKeyRecord]:
        found = super().load_latest_many(key_ids)  # type: ignore[arg-type]
        for key_id in key_ids:  # type: ignore[attr-defined]
            if key_id in self.junk:
                raise InvalidRecordError(f"key {key_id} (latest): not an envelope key record")
        return found

    def versions(self, key_id: str) -> list[KeyRow]:
        return [KeyRow(key_id, "{}")] * (key_id in self.junk) + super().versions(key_id)


def used_key(factory: SessionFactory, partition: str = "p") -> KeyMeta:
    return decode_row(factory.get_session(partition).encrypt(b"x")).key.parent_key_meta


def passed_over(world: World) -> list[str]:
    return [event.key_id for event in world.events if isinstance(event, KeyPassedOver)]


def kept(world: World) -> list[KeyMeta]:
    return [event.meta for event in world.events if isinstance(event, StaleKeyKept)]


@pytest.fixture
def junk(world: World) -> JunkMetastore:
    world.metastore = JunkMetastore(world.calls)
    world.factory = world.new_process()
    return world.metastore


class TestNewestRowThatIsNoKey:
    """One bad row that is the newest of its id hides no key."""

    @pytest.mark.parametrize("key_id", [IK_ID, SK_ID])
    def test_writes_go_on_under_the_key_behind_it(self, world: World, junk: JunkMetastore, key_id: str) -> None:
        text = world.factory.get_session("p").encrypt(b"x")
        junk.junk = frozenset({key_id})
        process = world.new_process()
        assert used_key(process) == IK
        assert process.get_session("p").decrypt(text) == b"x"
        assert used_key(process, "q") == KeyMeta("_IK_q_svc_prod", START)
        assert set(passed_over(world)) == {key_id}

    def test_where_no_key_is_behind_it_one_is_made(self, world: World, junk: JunkMetastore) -> None:
        junk.junk = frozenset({IK_ID, SK_ID})
        assert used_key(world.factory) == IK
        assert used_key(world.new_process()) == IK

    def test_one_among_a_thousand_ids_leaves_the_others_their_keys(self, world: World, junk: JunkMetastore) -> None:
        names = [f"t{number}" for number in range(1000)]
        made = world.factory.current_keys(names)
        junk.junk = frozenset({"_IK_t500_svc_prod", "_IK_new_svc_prod"})
        world.taken_calls()
        found = world.new_process().current_keys([*names, "new"])
        assert {name: key.meta for name, key in found.items() if name != "new"} == {
            name: key.meta for name, key in made.items()
        }
        calls = world.taken_calls()
        assert calls["load_latest_many"] <= 40
        assert sorted(passed_over(world)) == ["_IK_new_svc_prod", "_IK_t500_svc_prod"]

    def test_a_rotation_makes_a_newer_key(self, world: World, junk: JunkMetastore) -> None:
        used_key(world.factory)
        junk.junk = frozenset({IK_ID, SK_ID})
        assert world.factory.system_keys.rotate(SK_ID).meta == KeyMeta(SK_ID, START + 1)
        assert world.factory.intermediate_keys.rotate(IK_ID).meta == KeyMeta(IK_ID, START + 1)
        keys = world.factory.intermediate_keys.rotate_many([IK_ID])
        assert keys[IK_ID].meta == KeyMeta(IK_ID, START + 2)

    def test_a_metastore_that_can_not_list_says_what_is_wrong(self, world: World, junk: JunkMetastore) -> None:
        used_key(world.factory)
        junk.junk = frozenset({IK_ID})
        junk.versions = None  # type: ignore[method-assign, assignment]
        bare = Bare(junk)
        factory = SessionFactory("svc", "prod", bare, world.kms, clock=world.clock, timer=world.clock)
        with pytest.raises(InvalidRecordError, match="not an envelope key record"):
            used_key(factory)


class RefusingKMS(CountingKMS):
    """A KMS that says what it can't open in a way of its own, and may take long to say so."""

    def __init__(self, world: World, refusal: type[AsherahError], seconds: float = 0.0) -> None:
        super().__init__(world.calls)
        self._world, self._refusal, self._seconds = world, refusal, seconds

    def decrypt_key(self, wrapped: bytes) -> bytearray:
        try:
            return super().decrypt_key(wrapped)
        except DecryptionError:
            self._world.clock.now += self._seconds
            raise self._refusal("no region opens it") from None


class TestNewestSystemKeyThatCantBeOpened:
    """One row that looks like a system key, and was never one here, stops no new writes."""

    def plant(self, world: World, *seconds: int) -> None:
        """Let rows that hold no system key of ours stand this long after the first."""
        for second in seconds or (30,):
            world.metastore.records[KeyMeta(SK_ID, START + second)] = EnvelopeKeyRecord(
                created=START + second, key=bytes(60)
            )

    @pytest.fixture(params=[KMSError, InvalidRecordError, DecryptionError])
    def process(self, world: World, request: pytest.FixtureRequest) -> SessionFactory:
        world.kms = RefusingKMS(world, request.param)
        used_key(world.new_process())
        self.plant(world)
        world.events.clear()
        world.clock.now = START + 60
        return world.new_process()

    @pytest.mark.parametrize("many", [False, True])
    def test_new_partitions_get_keys_under_the_one_before(
        self, world: World, process: SessionFactory, many: bool
    ) -> None:
        key = process.current_keys(["q", "r"])["q"] if many else process.get_session("q").newest_key()
        assert key.record.parent_key_meta == SK
        text = process.get_session("q").encrypt(b"x")
        assert world.new_process().get_session("q").decrypt(text) == b"x"
        assert set(passed_over(world)) == {SK_ID}

    def test_a_rotation_makes_a_newer_one(self, process: SessionFactory) -> None:
        assert process.system_keys.rotate(SK_ID).meta == KeyMeta(SK_ID, START + 60)
        assert process.get_session("q").newest_key().record.parent_key_meta == KeyMeta(SK_ID, START + 60)

    def test_a_retired_one_before_it_takes_no_writes(self, world: World, process: SessionFactory) -> None:
        world.metastore.revoke(SK)
        with pytest.raises((KMSError, DecryptionError), match=f"system key {SK_ID} created {START + 30}"):
            used_key(process, "q")

    def test_several_are_passed_over_and_not_too_many_are_tried(self, world: World, process: SessionFactory) -> None:
        self.plant(world, 31)
        assert used_key(process, "q")
        self.plant(world, *range(32, 40))
        world.taken_calls()
        with pytest.raises((KMSError, DecryptionError), match=f"system key {SK_ID} created {START + 39}"):
            used_key(world.new_process(), "r")
        assert world.taken_calls()["unwrap"] == MOST_TRIED

    @pytest.mark.parametrize("many", [False, True])
    def test_a_key_that_is_to_be_renewed_ahead_of_its_end_goes_on(
        self, world: World, process: SessionFactory, many: bool
    ) -> None:
        self.plant(world, *range(30, 40))
        policy = CryptoPolicy(renew_ahead=100 * DAY)
        process = SessionFactory(
            "svc", "prod", world.metastore, world.kms, policy, clock=world.clock, timer=world.clock, random=bytes
        )
        assert (process.current_keys(["p"])["p"].meta if many else used_key(process)) == IK


def test_a_kms_that_takes_long_to_refuse_is_not_asked_for_the_system_key_before(world: World) -> None:
    world.kms = RefusingKMS(world, KMSError, PATIENCE + 1)
    used_key(world.new_process())
    world.metastore.records[KeyMeta(SK_ID, START + 1)] = EnvelopeKeyRecord(created=START + 1, key=bytes(60))
    world.taken_calls()
    with pytest.raises(KMSError):
        used_key(world.new_process(), "q")
    assert world.taken_calls()["unwrap"] == 1


class Bare:
    """A metastore with the five methods of the protocol and no other."""

    def __init__(self, metastore: CountingMetastore) -> None:
        self.load, self.load_many, self.load_latest = metastore.load, metastore.load_many, metastore.load_latest
        self.store, self.is_committed = metastore.store, metastore.is_committed


class TestKeysFromTheFuture:
    """A host whose clock is years ahead makes keys that nobody else shall write under."""

    def make_future_keys(self, world: World) -> str:
        world.clock.now = START + FOUR_YEARS
        text = world.new_process().get_session("p").encrypt(b"from the future")
        world.clock.now = START + DAY
        return text

    @pytest.mark.parametrize("has_older", [True, False])
    def test_they_take_no_new_writes_and_are_told(self, world: World, has_older: bool) -> None:
        if has_older:
            used_key(world.factory)
        text = self.make_future_keys(world)
        process = world.new_process()
        assert used_key(process) == (IK if has_older else KeyMeta(IK_ID, START + DAY))
        assert used_key(world.new_process()) == (IK if has_older else KeyMeta(IK_ID, START + DAY))
        assert IK_ID in passed_over(world)
        assert process.get_session("p").decrypt(text) == b"from the future"

    def test_many_at_once_are_passed_over_too(self, world: World) -> None:
        self.make_future_keys(world)
        assert world.new_process().current_keys(["p", "q"])["p"].meta == KeyMeta(IK_ID, START + DAY)

    def test_a_rotation_returns_to_now(self, world: World) -> None:
        self.make_future_keys(world)
        assert world.factory.system_keys.rotate(SK_ID).meta == KeyMeta(SK_ID, START + DAY)
        assert world.factory.intermediate_keys.rotate(IK_ID).meta == KeyMeta(IK_ID, START + DAY)
        assert world.factory.intermediate_keys.rotate_many([IK_ID])[IK_ID].meta == KeyMeta(IK_ID, START + DAY + 1)

    @pytest.mark.parametrize(("ahead", "used"), [(MAX_SKEW, START + MAX_SKEW), (MAX_SKEW + 1, START)])
    def test_the_skew_of_healthy_clocks_is_allowed(self, world: World, ahead: int, used: int) -> None:
        used_key(world.factory)
        future = KeyMeta(IK_ID, START + ahead)
        sealed = world.metastore.records[IK]
        world.metastore.records[future] = replace(sealed, created=future.created)
        assert used_key(world.new_process()) == KeyMeta(IK_ID, used)

    def test_a_metastore_that_can_not_list_uses_them_as_the_sdks_do(self, world: World) -> None:
        self.make_future_keys(world)
        factory = SessionFactory("svc", "prod", Bare(world.metastore), world.kms, clock=world.clock, timer=world.clock)
        assert used_key(factory) == KeyMeta(IK_ID, START + FOUR_YEARS)

    def test_a_host_whose_clock_is_ahead_of_its_own_keys_goes_on_when_it_is_corrected(self, world: World) -> None:
        process = world.new_process()
        world.clock.now = START + FOUR_YEARS
        assert used_key(process).created == START + FOUR_YEARS
        world.clock.now = START
        process.intermediate_keys.require_checks()
        assert used_key(process) == IK


class TestRowThatHoldsSomethingElseByNow:
    """An opened key goes on reading, and is never written under, when its row no longer holds it."""

    @pytest.fixture
    def text(self, world: World) -> str:
        return world.factory.get_session("p").encrypt(b"x")

    def spoil(self, world: World, meta: KeyMeta, how: str) -> None:
        old = world.metastore.records[meta]
        junk = bytes(60) if how == "junk" else Cipher(b"?" * 32).seal(b"i" * 32)
        world.metastore.records[meta] = (
            replace(old, created=START - 60) if how == "another time" else replace(old, key=junk)
        )

    @pytest.mark.parametrize("how", ["junk", "another key"])
    @pytest.mark.parametrize("meta", [IK, SK])
    def test_reads_go_on_and_writes_get_another_key(self, world: World, text: str, meta: KeyMeta, how: str) -> None:
        self.spoil(world, meta, how)
        world.clock.now = START + 3600
        session = world.factory.get_session("p")
        assert session.decrypt(text) == b"x"
        assert world.factory.load_keys([IK])[IK].meta == IK
        if meta == IK:
            assert kept(world) == [IK]
            new = session.encrypt(b"y")
            assert world.new_process().get_session("p").decrypt(new) == b"y"

    def test_reads_go_on_under_a_row_of_another_time(self, world: World, text: str) -> None:
        self.spoil(world, IK, "another time")
        world.clock.now = START + 3600
        assert world.factory.get_session("p").decrypt(text) == b"x"
        assert world.factory.load_keys([IK])[IK].is_for_reading

    def test_nothing_is_written_under_a_system_key_whose_row_is_spoilt(self, world: World, text: str) -> None:
        self.spoil(world, SK, "another time")
        world.clock.now = START + 3600
        with pytest.raises((KMSError, DecryptionError)):
            # The newest system key does not open, which stops writes; no intermediate key is written under meanwhile.
            world.kms.down = True
            world.factory.get_session("p").encrypt(b"y")

    def test_many_at_once_go_on_too(self, world: World, text: str) -> None:
        self.spoil(world, IK, "another key")
        world.clock.now = START + 3600
        assert world.factory.load_keys([IK])[IK].meta == IK
        assert kept(world) == [IK]

    def test_the_row_is_asked_again_a_while_later(self, world: World, text: str) -> None:
        good = world.metastore.records[IK]
        self.spoil(world, IK, "junk")
        world.clock.now = START + 3600
        session = world.factory.get_session("p")
        session.decrypt(text)
        world.taken_calls()
        session.decrypt(text)
        assert world.taken_calls() == {}
        world.metastore.records[IK] = good
        world.clock.now += RETRY_AFTER
        session.decrypt(text)
        assert world.taken_calls() == {"load": 1}
        assert used_key(world.factory) == IK


def test_two_services_whose_key_ids_are_the_same_write_under_their_own_keys(world: World) -> None:
    options = {"clock": world.clock, "timer": world.clock, "on_event": world.events.append}
    first = SessionFactory("app", "pay", world.metastore, world.kms, key_suffix="eu", **options)  # type: ignore[arg-type]
    second = SessionFactory("pay", "eu", world.metastore, world.kms, **options)  # type: ignore[arg-type]
    mine, theirs = first.get_session("t1"), second.get_session("t1_app")
    assert mine.partition.intermediate_key_id == theirs.partition.intermediate_key_id == "_IK_t1_app_pay_eu"
    texts = [mine.encrypt(b"mine"), theirs.encrypt(b"theirs")]
    assert [decode_row(text).key.parent_key_meta.created for text in texts] == [START, START + 1]
    for factory in (first, second):
        factory.clear()
    assert [mine.decrypt(texts[0]), theirs.decrypt(texts[1])] == [b"mine", b"theirs"]
    with pytest.raises(PartitionMismatchError):
        mine.decrypt(texts[1])
    assert [decode_row(mine.encrypt(b"x")).key.parent_key_meta.created, passed_over(world)[-1]] == [
        START,
        "_IK_t1_app_pay_eu",
    ]


@pytest.mark.parametrize("many", [False, True])
def test_a_place_that_no_key_of_ours_has_taken_is_passed_by_and_the_old_key_does_follow(
    world: World, many: bool
) -> None:
    used_key(world.factory)
    world.clock.now = START + 60
    taken = KeyMeta(IK_ID, START + 60)
    foreign = KeyMeta("_SK_others", START)
    world.metastore.records[taken] = replace(
        world.metastore.records[IK], created=taken.created, parent_key_meta=foreign
    )
    ring = world.factory.intermediate_keys
    made = ring.rotate_many([IK_ID])[IK_ID] if many else ring.rotate(IK_ID)
    assert made.meta == KeyMeta(IK_ID, START + 61)
