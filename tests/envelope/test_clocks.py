"""Clocks that jump, and clocks at the end of time."""

from __future__ import annotations

import pytest

from django_asherah.envelope.interfaces import RenewalFailed
from django_asherah.envelope.policy import CryptoPolicy
from django_asherah.envelope.records import (
    MAX_CREATED,
    EnvelopeKeyRecord,
    KeyMeta,
    decode_key,
    decode_row,
    encode_key,
)
from django_asherah.envelope.session import SessionFactory
from django_asherah.exceptions import EncryptionError, KMSError, MetastoreError
from tests.envelope.fakes import DAY, IK_ID, SK_ID, START, FakeClock, World

SK, IK = KeyMeta(SK_ID, START), KeyMeta(IK_ID, START)


class TwoClocks(World):
    """An engine whose wall clock and timer move by themselves."""

    def __init__(self, **options: object) -> None:
        self.timer = FakeClock()
        super().__init__(**options)

    def new_process(self) -> SessionFactory:
        return SessionFactory(
            "svc",
            "prod",
            self.metastore,
            self.kms,
            self.policy,
            clock=self.clock,
            timer=self.timer,
            on_event=self.events.append,
            **self.options,
        )

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.timer.now += seconds


def used_key(factory: SessionFactory) -> KeyMeta:
    return decode_row(factory.get_session("p").encrypt(b"x")).key.parent_key_meta


@pytest.mark.parametrize("revoked", [SK, IK])
@pytest.mark.parametrize("jump", [-4 * 365 * DAY, -3599.0])
def test_a_revocation_is_noticed_at_the_check_although_the_wall_clock_was_set_back(
    jump: float, revoked: KeyMeta
) -> None:
    world = TwoClocks()
    assert used_key(world.factory) == IK
    world.metastore.revoke(revoked)
    world.clock.now += jump
    world.timer.now += 3599
    assert used_key(world.factory) == IK
    world.timer.now += 1
    assert used_key(world.factory) != IK


def test_a_key_that_could_not_be_loaded_is_asked_for_again_although_the_wall_clock_was_set_back() -> None:
    world = TwoClocks()
    assert used_key(world.factory) == IK
    process = world.new_process()
    world.kms.down = True
    assert process.load_keys([IK]) == {}
    world.kms.down = False
    world.clock.now -= DAY
    world.timer.now += 10
    assert list(process.load_keys([IK])) == [IK]


def test_a_key_expires_by_the_wall_clock_at_the_next_check_after_it_jumped() -> None:
    world = TwoClocks()
    assert used_key(world.factory) == IK
    world.clock.now += 91 * DAY
    world.timer.now += 3600
    assert used_key(world.factory) == KeyMeta(IK_ID, world.policy.created_at(world.clock.now))


class TestTheEndOfTime:
    """What no record can hold is never written."""

    @pytest.mark.parametrize("now", [MAX_CREATED + 1.0, 2.0**53, -1.0, float("inf"), float("nan")])
    @pytest.mark.parametrize("has_keys", [True, False])
    def test_a_clock_out_of_bounds_is_an_error_of_ours(self, now: float, has_keys: bool) -> None:
        world = World()
        if has_keys:
            used_key(world.factory)
        stored = dict(world.metastore.records)
        world.clock.now = now
        with pytest.raises(EncryptionError, match="set the clock"):
            world.factory.get_session("p").encrypt(b"x")
        with pytest.raises(EncryptionError, match="set the clock"):
            world.new_process().get_session("p").encrypt_compact(b"x")
        with pytest.raises(EncryptionError, match="set the clock"):
            world.factory.get_session("p").start_file()
        with pytest.raises(EncryptionError, match="set the clock"):
            world.new_process().current_keys(["p", "q"])
        assert world.metastore.records == stored

    def test_the_last_second_serves(self) -> None:
        world = World(policy=CryptoPolicy(created_precision=1))
        world.clock.now = MAX_CREATED + 0.5
        text = world.factory.get_session("p").encrypt(b"x")
        assert decode_row(text).key.created == MAX_CREATED
        assert world.new_process().get_session("p").decrypt(text) == b"x"
        record = world.metastore.records[KeyMeta(IK_ID, MAX_CREATED)]
        assert decode_key(encode_key(record)) == record

    def test_after_the_last_second_no_key_can_follow(self) -> None:
        world = World(policy=CryptoPolicy(created_precision=1))
        world.clock.now = MAX_CREATED
        used_key(world.factory)
        with pytest.raises(EncryptionError, match="set the clock"):
            world.factory.intermediate_keys.rotate(IK_ID)
        with pytest.raises(EncryptionError, match="set the clock"):
            world.factory.intermediate_keys.rotate_many([IK_ID])


WEEK = 7 * DAY
EXPIRY = START + 90 * DAY


def ahead_world(draw: bytes = b"\xff" * 4, grace: float = 0.0) -> World:
    """Return an engine that renews up to a week ahead; ``draw`` is what its random moments are drawn from."""

    def random(length: int) -> bytes:
        return draw if length == 4 else bytes(range(length))

    return World(policy=CryptoPolicy(renew_ahead=WEEK, grace=grace), random=random)


class TestRenewalAhead:
    """Keys are renewed before they expire, at moments that differ between processes."""

    def test_a_week_before_its_end_a_key_is_followed_by_the_first_that_draws_so(self) -> None:
        world = ahead_world()
        used_key(world.factory)
        world.clock.now = EXPIRY - WEEK
        assert used_key(world.factory) == IK
        world.clock.now += 3600
        new = KeyMeta(IK_ID, EXPIRY - WEEK + 3600)
        assert used_key(world.factory) == new
        assert world.metastore.records[new].parent_key_meta == KeyMeta(SK_ID, EXPIRY - WEEK + 3600)
        assert used_key(world.new_process()) == new

    def test_whoever_draws_late_goes_on_until_the_end(self) -> None:
        world = ahead_world(draw=bytes(4))
        used_key(world.factory)
        world.clock.now = EXPIRY
        assert used_key(world.factory) == IK
        world.clock.now += 1
        assert used_key(world.factory) == KeyMeta(IK_ID, EXPIRY)

    def test_a_younger_key_follows_when_its_system_key_has_been_followed(self) -> None:
        world = ahead_world()
        used_key(world.factory)
        world.clock.now = START + 30 * DAY
        world.factory.intermediate_keys.rotate(IK_ID)
        young = KeyMeta(IK_ID, START + 30 * DAY)
        assert world.metastore.records[young].parent_key_meta == SK
        world.clock.now = EXPIRY - WEEK + 3600
        new = used_key(world.factory)
        assert new == KeyMeta(IK_ID, EXPIRY - WEEK + 3600)
        assert world.metastore.records[new].parent_key_meta == KeyMeta(SK_ID, EXPIRY - WEEK + 3600)

    def test_many_at_once_are_renewed_together(self) -> None:
        world = ahead_world()
        world.factory.current_keys(["p", "q"])
        world.clock.now = EXPIRY - WEEK + 3600
        world.taken_calls()
        keys = world.factory.current_keys(["p", "q"])
        assert {key.meta.created for key in keys.values()} == {EXPIRY - WEEK + 3600}
        assert world.taken_calls()["wrap"] == 1

    @pytest.mark.parametrize("broken", ["kms", "store"])
    @pytest.mark.parametrize("many", [False, True])
    def test_an_outage_then_costs_no_write_and_is_told(self, broken: str, many: bool) -> None:
        world = ahead_world()
        used_key(world.factory)
        world.clock.now = EXPIRY - WEEK + 3600
        if broken == "kms":
            world.kms.down = True
        else:

            def fail(*arguments: object) -> bool:
                raise MetastoreError("read-only")

            world.metastore.store = world.metastore.store_many = fail  # type: ignore[method-assign, assignment]
        meta = world.factory.current_keys(["p"])["p"].meta if many else used_key(world.factory)
        # Under the system key that is still valid, a new intermediate key needs no KMS.
        assert meta == (KeyMeta(IK_ID, EXPIRY - WEEK + 3600) if broken == "kms" else IK)
        failed = {event.meta: event.until for event in world.events if isinstance(event, RenewalFailed)}
        assert failed == ({SK: EXPIRY} if broken == "kms" else {SK: EXPIRY, IK: EXPIRY})


class TestGrace:
    """An outage at the very second in which a key expires does not stop writes."""

    @pytest.mark.parametrize("down", ["kms", "metastore"])
    def test_an_expired_key_goes_on_for_its_grace_and_no_longer_and_that_is_told(self, down: str) -> None:
        world = ahead_world(grace=DAY)
        used_key(world.factory)
        (world.kms if down == "kms" else world.metastore).down = True
        world.clock.now = EXPIRY + 1
        # Under the system key that is in its grace, a new intermediate key needs no KMS.
        used = KeyMeta(IK_ID, EXPIRY) if down == "kms" else IK
        assert used_key(world.factory) == used
        failed = {event.meta: event.until for event in world.events if isinstance(event, RenewalFailed)}
        assert failed == {(SK if down == "kms" else IK): EXPIRY + DAY}
        world.clock.now = EXPIRY + 3600
        assert used_key(world.factory) == used
        world.clock.now = EXPIRY + DAY
        assert used_key(world.factory) == used
        world.clock.now += 1
        with pytest.raises((KMSError, MetastoreError)):
            used_key(world.factory)

    def test_a_metastore_that_fails_between_two_questions_while_the_kms_is_down_ends_no_grace(self) -> None:
        def load(meta: KeyMeta) -> EnvelopeKeyRecord | None:
            raise MetastoreError("down")

        world = ahead_world(grace=DAY)
        used_key(world.factory)
        world.kms.down, world.metastore.load = True, load  # type: ignore[method-assign]
        world.clock.now = EXPIRY + 1
        record = world.factory.get_session("new partition").encrypt(b"x")
        assert decode_row(record).key.parent_key_meta.created == EXPIRY

    def test_it_ends_as_soon_as_a_key_can_be_made(self) -> None:
        world = ahead_world(grace=DAY)
        used_key(world.factory)
        world.kms.down = True
        world.clock.now = EXPIRY + 1
        used_key(world.factory)
        world.kms.down = False
        world.clock.now += 60
        new = KeyMeta(IK_ID, EXPIRY + 60)
        assert used_key(world.factory) == new
        assert world.metastore.records[new].parent_key_meta == KeyMeta(SK_ID, EXPIRY + 60)

    @pytest.mark.parametrize("at", [EXPIRY - 100, EXPIRY + 1])
    def test_there_is_none_under_a_revoked_system_key(self, at: int) -> None:
        world = ahead_world(grace=DAY)
        used_key(world.factory)
        world.kms.down = True
        world.metastore.revoke(SK)
        world.clock.now = at
        with pytest.raises(KMSError):
            used_key(world.factory)

    @pytest.mark.parametrize("at", [EXPIRY - 100, EXPIRY + 1])
    def test_there_is_none_for_a_revoked_key(self, at: int) -> None:
        world = ahead_world(grace=DAY)
        used_key(world.factory)
        world.kms.down = True
        world.metastore.revoke(IK)
        world.clock.now = at
        assert used_key(world.factory) != IK

    def test_one_that_is_revoked_within_its_grace_ends_at_the_next_look(self) -> None:
        world = ahead_world(grace=DAY)
        used_key(world.factory)
        world.kms.down = True
        world.clock.now = EXPIRY + 1
        used_key(world.factory)
        world.metastore.revoke(SK)
        world.clock.now += 60
        with pytest.raises(KMSError):
            used_key(world.factory)

    def test_a_system_key_known_to_be_revoked_takes_no_writes_while_the_metastore_is_down(self) -> None:
        world = ahead_world(grace=DAY)
        text = world.factory.get_session("p").encrypt(b"x")
        world.metastore.revoke(SK)
        world.clock.now = START + 3600
        world.factory.system_keys.exact(SK)
        world.metastore.down = True
        with pytest.raises(MetastoreError):
            used_key(world.factory)
        assert world.factory.get_session("p").decrypt(text) == b"x"
