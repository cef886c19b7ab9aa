"""The life of a key: made, expired, revoked, rotated, raced for, out of reach."""

from __future__ import annotations

from typing import Any

import pytest

from django_asherah.envelope.aead import Cipher
from django_asherah.envelope.interfaces import CacheMissed, KeyCreated, StaleKeyKept
from django_asherah.envelope.loading import RETRY_AFTER
from django_asherah.envelope.policy import MAX_SKEW, CryptoPolicy
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, decode_row
from django_asherah.envelope.session import SessionFactory
from django_asherah.exceptions import (
    DecryptionError,
    EncryptionError,
    InvalidRecordError,
    KeyNotFoundError,
    KMSError,
    MetastoreError,
    PartitionMismatchError,
)
from tests.envelope.fakes import DAY, IK_ID, SK_ID, START, World

SK, IK = KeyMeta(SK_ID, START), KeyMeta(IK_ID, START)


def used_key(world: World, factory: SessionFactory | None = None) -> KeyMeta:
    """Write something; return the intermediate key that it was written under."""
    return decode_row((factory or world.factory).get_session("p").encrypt(b"x")).key.parent_key_meta


def test_the_first_write_makes_both_keys_and_says_so(world: World) -> None:
    assert used_key(world) == IK
    assert world.taken_calls() == {"load_latest": 2, "wrap": 1, "store": 2}
    assert world.events == [CacheMissed(IK.key_id), CacheMissed(SK.key_id), KeyCreated(SK), KeyCreated(IK)]
    assert world.metastore.records[IK].parent_key_meta == SK


def test_a_question_to_the_metastore_is_told_and_a_cached_key_is_not(world: World) -> None:
    session = world.factory.get_session("p")
    text = session.encrypt(b"x")
    world.events.clear()
    session.encrypt(session.decrypt(text))
    assert world.events == []
    world.new_process().get_session("p").decrypt(text)
    assert world.events == [CacheMissed(IK_ID), CacheMissed(SK_ID)]
    world.events.clear()
    world.clock.now += world.policy.revoke_check_interval
    session.decrypt(text)
    assert world.events == [CacheMissed(IK_ID)]


def test_with_warm_caches_nothing_is_called(world: World) -> None:
    session = world.factory.get_session("p")
    text = session.encrypt(b"x")
    world.taken_calls()
    for _ in range(100):
        session.decrypt(session.encrypt(b"y"))
        session.decrypt(text)
    assert world.taken_calls() == {}


@pytest.mark.parametrize("payload", [b"", b"\0", b"x" * 100, bytes(1_000_000)])
def test_payloads_come_back_in_another_process(world: World, payload: bytes) -> None:
    text = world.factory.get_session("p").encrypt(payload)
    assert world.new_process().get_session("p").decrypt(text) == payload


@pytest.mark.parametrize("payload", ["text", None, 5, bytearray(b"x"), memoryview(b"x")])
def test_only_bytes_are_encrypted(world: World, payload: object) -> None:
    with pytest.raises(EncryptionError, match=f"not {type(payload).__name__}$"):
        world.factory.get_session("p").encrypt(payload)  # type: ignore[arg-type]
    assert world.metastore.records == {}


def test_another_partitions_record_is_refused_before_any_look_up(world: World) -> None:
    text = world.factory.get_session("p").encrypt(b"x")
    world.taken_calls()
    for other in ("P", "p ", "p_svc", "q"):
        with pytest.raises(PartitionMismatchError, match="_IK_p_svc_prod"):
            world.factory.get_session(other).decrypt(text)
    assert world.taken_calls() == {}


def test_a_key_takes_writes_up_to_its_last_second_and_no_longer(world: World) -> None:
    assert used_key(world) == IK
    world.clock.now = START + 90 * DAY
    assert used_key(world) == IK
    world.clock.now += 1
    assert used_key(world) == KeyMeta(IK_ID, START + 90 * DAY)


def test_old_records_open_after_every_rotation(world: World) -> None:
    session = world.factory.get_session("p")
    texts = []
    for month in range(12):
        world.clock.now = START + month * 91 * DAY
        texts.append(session.encrypt(str(month).encode()))
    assert len({decode_row(text).key.parent_key_meta for text in texts}) == 12
    for factory in (world.factory, world.new_process()):
        assert [factory.get_session("p").decrypt(text) for text in texts] == [str(n).encode() for n in range(12)]


def test_a_system_key_is_checked_at_its_own_time_although_the_key_below_it_was_read_later(world: World) -> None:
    used_key(world)
    world.clock.now = START + 1800
    world.factory.intermediate_keys.clear()
    assert used_key(world) == IK
    world.metastore.revoke(SK)
    world.clock.now = START + 3599
    assert used_key(world) == IK
    world.clock.now = START + 3600
    assert used_key(world) == KeyMeta(IK_ID, START + 3600)


@pytest.mark.parametrize("revoked", [SK, IK])
def test_a_revocation_is_noticed_when_the_key_is_checked_and_not_before(world: World, revoked: KeyMeta) -> None:
    assert used_key(world) == IK
    world.metastore.revoke(revoked)
    world.clock.now = START + 3599
    assert used_key(world) == IK
    world.clock.now = START + 3600
    new = used_key(world)
    assert new == KeyMeta(IK_ID, START + 3600)
    parent = world.metastore.records[new].parent_key_meta
    assert parent == (KeyMeta(SK_ID, START + 3600) if revoked is SK else SK)


def test_a_key_revoked_in_its_own_minute_is_followed_by_one_a_second_later(world: World) -> None:
    used_key(world)
    world.metastore.revoke(IK)
    assert used_key(world, world.new_process()) == KeyMeta(IK_ID, START + 1)
    world.metastore.revoke(KeyMeta(IK_ID, START + 1))
    assert used_key(world, world.new_process()) == KeyMeta(IK_ID, START + 2)


def test_a_newest_key_from_a_clock_a_little_ahead_is_used_and_if_revoked_followed(world: World) -> None:
    world.clock.now = START + MAX_SKEW
    used_key(world)
    ahead = KeyMeta(IK_ID, START + MAX_SKEW)
    world.clock.now = START
    process = world.new_process()
    assert used_key(world, process) == ahead
    world.metastore.revoke(ahead)
    assert used_key(world, world.new_process()) == KeyMeta(IK_ID, START + MAX_SKEW + 1)


def test_a_key_that_lives_shorter_than_the_precision_is_made_once_a_life() -> None:
    world = World(policy=CryptoPolicy(expire_after=10, revoke_check_interval=1))
    used = []
    for second in range(40):
        world.clock.now = START + second
        used.append(used_key(world).created)
    assert len(set(used)) <= 5
    assert all(START + second - created <= 10 for second, created in enumerate(used))


class Racing:
    """Stores a record of its own just before ours arrives, a number of times."""

    def __init__(self, world: World, key_id: str, *, revoked: bool = False, times: int = 1) -> None:
        self._store = world.metastore.store
        self._world = world
        self._key_id = key_id
        self._revoked = revoked
        self.left = times
        world.metastore.store = self.store  # type: ignore[method-assign]

    def store(self, key_id: str, record: EnvelopeKeyRecord) -> bool:
        if key_id == self._key_id and self.left:
            self.left -= 1
            rival = EnvelopeKeyRecord(
                revoked=self._revoked,
                created=record.created,
                key=self._seal(record),
                parent_key_meta=record.parent_key_meta,
            )
            assert self._store(key_id, rival)
        return self._store(key_id, record)

    def _seal(self, record: EnvelopeKeyRecord) -> bytes:
        raw = b"r" * 32
        if record.parent_key_meta is None:
            return self._world.kms.encrypt_key(raw)
        return self._world.factory.system_keys.exact(record.parent_key_meta).cipher.seal(raw)


@pytest.mark.parametrize("key_id", [SK_ID, IK_ID])
def test_whoevers_record_stands_is_the_key(world: World, key_id: str) -> None:
    Racing(world, key_id)
    text = world.factory.get_session("p").encrypt(b"x")
    assert world.new_process().get_session("p").decrypt(text) == b"x"
    assert sorted(world.metastore.records, key=str) == [IK, SK]
    created = [event.meta.key_id for event in world.events if isinstance(event, KeyCreated)]
    assert created == [IK_ID if key_id == SK_ID else SK_ID]


def test_a_rival_that_is_revoked_at_once_does_not_become_the_key(world: World) -> None:
    Racing(world, IK_ID, revoked=True)
    assert used_key(world) == KeyMeta(IK_ID, START + 1)


def test_rivals_without_end_are_an_error_and_no_endless_loop(world: World) -> None:
    racing = Racing(world, IK_ID, revoked=True, times=1000)
    with pytest.raises(EncryptionError, match="in 10 attempts: others keep retiring it"):
        used_key(world)
    assert racing.left == 990


def test_an_intermediate_key_opens_with_the_system_key_that_it_names(world: World) -> None:
    text = world.factory.get_session("p").encrypt(b"x")
    world.clock.now = START + 60
    world.factory.system_keys.rotate(SK_ID)
    assert decode_row(text).key.parent_key_meta == IK
    assert world.new_process().get_session("p").decrypt(text) == b"x"
    assert used_key(world, world.new_process()) == IK, "a superseded system key is not a retired one"


class TestRotate:
    """A new key now, whatever the age of the latest."""

    def test_twice_within_a_minute(self, world: World) -> None:
        used_key(world)
        ring = world.factory.intermediate_keys
        assert [ring.rotate(IK_ID).meta.created for _ in range(2)] == [START + 1, START + 2]
        assert used_key(world) == KeyMeta(IK_ID, START + 2)

    def test_other_processes_follow_at_their_check(self, world: World) -> None:
        other = world.new_process()
        assert used_key(world, other) == IK
        world.factory.intermediate_keys.rotate(IK_ID)
        assert used_key(world, other) == IK
        world.clock.now = START + 3600
        assert used_key(world, other) == KeyMeta(IK_ID, START + 1)

    def test_a_lost_race_leaves_the_winner_as_the_newest(self, world: World) -> None:
        used_key(world)
        Racing(world, IK_ID)
        assert world.factory.intermediate_keys.rotate(IK_ID).meta == KeyMeta(IK_ID, START + 1)
        text = world.factory.get_session("p").encrypt(b"x")
        assert world.new_process().get_session("p").decrypt(text) == b"x"

    def test_a_failure_leaves_the_latest_in_use(self, world: World) -> None:
        used_key(world)
        world.kms.down = True
        with pytest.raises(KMSError):
            world.factory.system_keys.rotate(SK_ID)
        assert used_key(world) == IK


class TestOutOfReach:
    """The metastore or the KMS is down when a key is due for its check."""

    def test_a_cached_key_goes_on_with_an_event(self, world: World) -> None:
        session = world.factory.get_session("p")
        text = session.encrypt(b"x")
        world.metastore.down = True
        world.clock.now = START + 3600
        world.events.clear()
        assert session.decrypt(text) == b"x"
        assert used_key(world) == IK
        assert [event.meta for event in world.events if isinstance(event, StaleKeyKept)] == [IK]

    def test_the_metastore_is_asked_again_a_while_later_and_not_at_every_use(self, world: World) -> None:
        session = world.factory.get_session("p")
        text = session.encrypt(b"x")
        world.metastore.down = True
        world.clock.now = START + 3600
        session.decrypt(text)
        session.encrypt(b"y")
        world.taken_calls()
        for _ in range(10):
            session.decrypt(text)
            session.encrypt(b"y")
        assert world.taken_calls() == {}
        world.clock.now += RETRY_AFTER
        session.decrypt(text)
        assert world.taken_calls() == {"load": 1}

    @pytest.mark.parametrize(("interval", "trusted_for"), [(3600, 60), (61, 60), (59, 59), (5, 5)])
    def test_the_metastore_is_asked_again_after_a_minute_or_the_check_interval_whichever_is_shorter(
        self, interval: int, trusted_for: int
    ) -> None:
        world = World(policy=CryptoPolicy(revoke_check_interval=interval))
        session = world.factory.get_session("p")
        text = session.encrypt(b"x")
        world.metastore.down = True
        world.clock.now = failed = START + interval
        session.decrypt(text)
        world.taken_calls()
        world.clock.now = failed + trusted_for - 0.5
        session.decrypt(text)
        session.encrypt(b"y")
        assert world.taken_calls() == {}
        world.clock.now = failed + trusted_for
        session.decrypt(text)
        assert world.taken_calls() == {"load": 1}
        world.clock.now += trusted_for
        session.encrypt(b"y")
        assert world.taken_calls() == {"load_latest": 1}

    def test_a_revocation_that_a_read_has_noticed_keeps_new_writes_out(self, world: World) -> None:
        session = world.factory.get_session("p")
        text = session.encrypt(b"x")
        world.metastore.revoke(IK)
        world.clock.now = START + 3600
        session.decrypt(text)
        world.metastore.down = True
        world.clock.now = START + 7200
        assert session.decrypt(text) == b"x"
        with pytest.raises(MetastoreError):
            session.encrypt(b"y")

    def test_new_writes_go_on_until_the_key_expires(self, world: World) -> None:
        session = world.factory.get_session("p")
        text = session.encrypt(b"x")
        world.metastore.down = True
        world.clock.now = START + 90 * DAY
        assert used_key(world) == IK
        world.clock.now += 1
        with pytest.raises(MetastoreError):
            session.encrypt(b"y")
        assert session.decrypt(text) == b"x"

    def test_a_key_that_is_not_cached_is_an_error(self, world: World) -> None:
        text = world.factory.get_session("p").encrypt(b"x")
        world.metastore.down = True
        with pytest.raises(MetastoreError):
            world.new_process().get_session("p").decrypt(text)
        world.metastore.down, world.kms.down = False, True
        with pytest.raises(KMSError, match=f"system key {SK}: down") as caught:
            world.new_process().get_session("p").decrypt(text)
        assert list(caught.value.failures) == ["here"]

    def test_a_revocation_counts_although_the_kms_is_down(self, world: World) -> None:
        other = world.new_process()
        assert used_key(world, other) == IK
        world.clock.now = START + 60
        world.factory.system_keys.rotate(SK_ID)
        world.factory.intermediate_keys.rotate(IK_ID)
        world.kms.down = True
        world.clock.now = START + 3600
        assert used_key(world, other) == IK, "the newer key can't be opened, and this one is still valid"
        world.metastore.revoke(IK)
        world.clock.now += RETRY_AFTER
        with pytest.raises(KMSError):
            used_key(world, other)

    def test_recovery_is_noticed(self, world: World) -> None:
        assert used_key(world) == IK
        world.metastore.down = True
        world.clock.now = START + 3600
        used_key(world)
        world.metastore.down = False
        world.metastore.revoke(IK)
        world.clock.now += RETRY_AFTER
        assert used_key(world) == KeyMeta(IK_ID, START + 3660)

    def test_a_revocation_counts_although_no_new_key_can_be_stored(self, world: World) -> None:
        def store(key_id: str, record: EnvelopeKeyRecord) -> bool:
            raise MetastoreError("read-only")

        used_key(world)
        world.metastore.revoke(IK)
        world.clock.now = START + 3600
        world.metastore.store = store  # type: ignore[method-assign]
        with pytest.raises(MetastoreError, match="read-only"):
            used_key(world)

    @pytest.mark.parametrize("gone", [[SK], [IK], [IK, SK]])
    @pytest.mark.parametrize("is_batch", [True, False])
    def test_a_deletion_counts_although_no_new_key_can_be_stored(
        self, world: World, gone: list[KeyMeta], is_batch: bool
    ) -> None:
        def store(*arguments: Any) -> Any:
            raise MetastoreError("read-only")

        used_key(world)
        for meta in gone:
            del world.metastore.records[meta]
        world.clock.now = START + 3600
        world.metastore.store = world.metastore.store_many = store  # type: ignore[method-assign]
        for _ in range(3):
            with pytest.raises(MetastoreError, match="read-only"):
                world.factory.current_keys(["p"]) if is_batch else used_key(world)
            world.clock.now += RETRY_AFTER

    def test_a_key_that_was_found_deleted_is_no_fallback_later(self, world: World) -> None:
        text = world.factory.get_session("p").encrypt(b"x")
        del world.metastore.records[IK]
        world.clock.now = START + 3600
        with pytest.raises(KeyNotFoundError):
            world.factory.get_session("p").decrypt(text)
        world.metastore.down = True
        with pytest.raises(MetastoreError):
            world.factory.get_session("p").decrypt(text)

    def test_a_failed_store_is_never_taken_for_a_duplicate(self, world: World) -> None:
        def store(key_id: str, record: EnvelopeKeyRecord) -> bool:
            raise MetastoreError("disk full")

        world.metastore.store = store  # type: ignore[method-assign]
        with pytest.raises(MetastoreError, match="disk full"):
            used_key(world)

    def test_a_refused_store_without_a_record_is_an_error(self, world: World) -> None:
        world.metastore.store = lambda key_id, record: False  # type: ignore[method-assign]
        with pytest.raises(MetastoreError, match="yet holds none of this id"):
            used_key(world)


class TestTransactions:
    """A key whose row may yet be rolled back is checked before every use."""

    def test_a_rolled_back_key_is_not_used_again(self, world: World) -> None:
        world.metastore.begin()
        lost = world.factory.get_session("p").encrypt(b"lost with its transaction")
        assert world.factory.get_session("p").decrypt(lost) == b"lost with its transaction"
        world.metastore.roll_back()
        text = world.factory.get_session("p").encrypt(b"x")
        assert world.new_process().get_session("p").decrypt(text) == b"x"
        with pytest.raises(DecryptionError):
            world.factory.get_session("p").decrypt(lost)

    def test_a_rolled_back_key_under_a_committed_system_key_is_not_used_again(self, world: World) -> None:
        world.factory.get_session("q").encrypt(b"makes the system key")
        world.metastore.begin()
        world.factory.get_session("p").encrypt(b"lost with its transaction")
        world.metastore.roll_back()
        text = world.factory.get_session("p").encrypt(b"x")
        assert world.new_process().get_session("p").decrypt(text) == b"x"

    def test_a_read_under_a_rolled_back_key_says_that_it_is_gone(self, world: World) -> None:
        world.metastore.begin()
        lost = world.factory.get_session("p").encrypt(b"x")
        world.metastore.roll_back()
        with pytest.raises(KeyNotFoundError):
            world.factory.get_session("p").decrypt(lost)

    def test_a_committed_key_is_trusted_after_one_more_look(self, world: World) -> None:
        world.metastore.begin()
        session = world.factory.get_session("p")
        session.encrypt(b"x")
        world.metastore.commit()
        session.encrypt(b"x")
        world.taken_calls()
        session.encrypt(b"x")
        assert world.taken_calls() == {}

    def test_another_key_under_the_same_name_takes_its_place(self, world: World) -> None:
        world.metastore.begin()
        world.factory.get_session("p").encrypt(b"x")
        world.metastore.roll_back()
        other = world.new_process()
        text = other.get_session("p").encrypt(b"theirs")
        assert world.factory.get_session("p").decrypt(text) == b"theirs"

    def test_a_pending_key_is_no_fallback_when_the_metastore_is_down(self, world: World) -> None:
        world.metastore.begin()
        session = world.factory.get_session("p")
        text = session.encrypt(b"x")
        world.metastore.down = True
        with pytest.raises(MetastoreError):
            session.encrypt(b"y")
        with pytest.raises(MetastoreError):
            session.decrypt(text)


class TestDamage:
    """Rows of the key table that are not what they should be."""

    def test_an_intermediate_key_that_does_not_open_gives_way_to_a_new_one(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        used_key(world)
        world.metastore.records[IK] = EnvelopeKeyRecord(
            created=START, key=Cipher(b"?" * 32).seal(b"i" * 32), parent_key_meta=SK
        )
        assert used_key(world, world.new_process()) == KeyMeta(IK_ID, START + 1)
        assert "can't be opened, so new writes get a new key" in caplog.text

    def test_an_intermediate_key_that_does_not_open_is_named(self, world: World) -> None:
        text = world.factory.get_session("p").encrypt(b"x")
        world.metastore.records[IK] = EnvelopeKeyRecord(
            created=START, key=Cipher(b"?" * 32).seal(b"i" * 32), parent_key_meta=SK
        )
        with pytest.raises(
            DecryptionError, match=f"^record under key {IK}: intermediate key {IK}: could not be opened"
        ):
            world.new_process().get_session("p").decrypt(text)

    def test_a_system_key_that_does_not_open_is_an_error_and_never_replaced_in_silence(self, world: World) -> None:
        used_key(world)
        world.metastore.records[SK] = EnvelopeKeyRecord(created=START, key=Cipher(b"?" * 32).seal(b"s" * 32))
        world.metastore.records.pop(IK)
        with pytest.raises(DecryptionError, match=f"system key {SK}"):
            used_key(world, world.new_process())

    def test_an_intermediate_key_without_parent_is_no_key(self, world: World) -> None:
        text = world.factory.get_session("p").encrypt(b"x")
        world.metastore.records[IK] = EnvelopeKeyRecord(created=START, key=bytes(60))
        with pytest.raises(InvalidRecordError, match="names no system key"):
            world.new_process().get_session("p").decrypt(text)

    def test_a_record_under_another_time_is_refused(self, world: World) -> None:
        text = world.factory.get_session("p").encrypt(b"x")
        old = world.metastore.records[IK]
        world.metastore.records[IK] = EnvelopeKeyRecord(
            created=START - 60, key=old.key, parent_key_meta=old.parent_key_meta
        )
        with pytest.raises(InvalidRecordError, match=f"holds the record of a key created {START - 60}"):
            world.new_process().get_session("p").decrypt(text)

    def test_a_deleted_key_is_named(self, world: World) -> None:
        text = world.factory.get_session("p").encrypt(b"x")
        del world.metastore.records[IK]
        with pytest.raises(KeyNotFoundError, match=str(IK)):
            world.new_process().get_session("p").decrypt(text)
        world.clock.now = START + 3600
        with pytest.raises(KeyNotFoundError):
            world.factory.get_session("p").decrypt(text)


class TestRawKeys:
    """Raw keys are wiped as soon as there is a cipher, or none can be made."""

    @pytest.fixture
    def seen(self, world: World, monkeypatch: pytest.MonkeyPatch) -> list[bytearray]:
        """Collect every raw system key on its way to the KMS or from it."""
        buffers: list[bytearray] = []
        encrypt_key, decrypt_key = world.kms.encrypt_key, world.kms.decrypt_key

        def wrap(key: bytearray) -> bytes:
            buffers.append(key)
            return encrypt_key(key)

        def unwrap(wrapped: bytes) -> bytearray:
            buffers.append(decrypt_key(wrapped))
            return buffers[-1]

        monkeypatch.setattr(world.kms, "encrypt_key", wrap)
        monkeypatch.setattr(world.kms, "decrypt_key", unwrap)
        return buffers

    def test_of_a_key_that_is_made_and_of_one_that_is_opened(self, world: World, seen: list[bytearray]) -> None:
        text = world.factory.get_session("p").encrypt(b"x")
        world.new_process().get_session("p").decrypt(text)
        assert seen == [bytes(32), bytes(32)]

    def test_of_a_key_that_the_kms_does_not_wrap(self, world: World, seen: list[bytearray]) -> None:
        world.kms.down = True
        with pytest.raises(KMSError):
            used_key(world)
        assert seen == [bytes(32)]

    def test_of_a_key_that_is_not_stored(self, world: World, seen: list[bytearray]) -> None:
        world.metastore.store = lambda key_id, record: False  # type: ignore[method-assign]
        with pytest.raises(MetastoreError):
            used_key(world)
        assert seen == [bytes(32)]


def test_a_small_cache_costs_calls_and_loses_nothing() -> None:
    world = World(cache_size=1)
    texts = {name: world.factory.get_session(name).encrypt(name.encode()) for name in "abcdef"}
    for name, text in texts.items():
        assert world.factory.get_session(name).decrypt(text) == name.encode()


def test_clear_loads_again(world: World) -> None:
    session = world.factory.get_session("p")
    text = session.encrypt(b"x")
    world.factory.clear()
    world.taken_calls()
    assert session.decrypt(text) == b"x"
    assert world.taken_calls() == {"load": 2, "unwrap": 1}


def test_a_session_is_a_context_manager_with_a_plain_repr(world: World) -> None:
    with world.factory.get_session("tenant-7") as session:
        assert session.decrypt(session.encrypt(b"x")) == b"x"
    assert repr(session) == "<Session _IK_tenant-7_svc_prod>"
    assert repr(world.factory) == "<SessionFactory _SK_svc_prod>"
