"""A key that the KMS has made and the metastore could not store: the next attempt stores it and asks for no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_asherah.envelope.policy import MAX_SKEW, CryptoPolicy
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta
from django_asherah.envelope.session import SessionFactory
from django_asherah.exceptions import KMSError, MetastoreError
from tests.envelope.fakes import DAY, IK_ID, SK_ID, START, World

MINUTE = 60


class ReadOnlyWorld(World):
    """A world whose metastore can refuse to store while it answers, or store and not say so."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.read_only = False
        self.answers_are_lost = False
        store, store_many = self.metastore.store, self.metastore.store_many
        self.metastore.store = self._refusing(store)  # type: ignore[method-assign]
        self.metastore.store_many = self._refusing(store_many)  # type: ignore[method-assign]

    def _refusing(self, store: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(*arguments: Any) -> Any:
            if self.read_only:
                raise MetastoreError("read-only")
            stored = store(*arguments)
            if self.answers_are_lost:
                raise MetastoreError("who knows")
            return stored

        return refuse

    def system_keys(self) -> dict[KeyMeta, EnvelopeKeyRecord]:
        return {meta: record for meta, record in self.metastore.records.items() if meta.key_id == SK_ID}


@pytest.fixture
def broken() -> ReadOnlyWorld:
    world = ReadOnlyWorld()
    world.read_only = True
    return world


def write_one(factory: SessionFactory) -> str:
    return factory.get_session("p").encrypt(b"x")


def write_many(factory: SessionFactory) -> str:
    keys = factory.current_keys(["o", "p", "q"])
    return factory.get_session("p").encrypt(b"x", keys["p"])


def fail(world: ReadOnlyWorld, write: Callable[[SessionFactory], str] = write_one, attempts: int = 5) -> None:
    for _ in range(attempts):
        with pytest.raises(MetastoreError, match="read-only"):
            write(world.factory)


WRITES = pytest.mark.parametrize("write", [write_one, write_many])


@WRITES
def test_however_often_it_fails_the_kms_makes_one_key(
    broken: ReadOnlyWorld, write: Callable[[SessionFactory], str]
) -> None:
    for _ in range(5):
        fail(broken, write)
        broken.clock.now += MINUTE
    assert (broken.calls["wrap"], broken.metastore.records) == (1, {})
    broken.read_only = False
    record = write(broken.factory)

    assert (broken.calls["wrap"], broken.calls["unwrap"]) == (1, 0)
    assert list(broken.system_keys()) == [KeyMeta(SK_ID, START)]  # When it was made, not when it was stored.
    assert broken.new_process().get_session("p").decrypt(record) == b"x"


def test_nothing_is_sealed_under_a_key_that_is_not_stored(broken: ReadOnlyWorld) -> None:
    fail(broken)
    rings = (broken.factory.system_keys, broken.factory.intermediate_keys)
    assert [len(ring) for ring in rings] == [0, 0]
    assert [ring.cache.newest for ring in rings] == [{}, {}]


@WRITES
def test_another_processes_key_takes_its_place(broken: ReadOnlyWorld, write: Callable[[SessionFactory], str]) -> None:
    fail(broken)
    broken.read_only = False
    other = broken.new_process()
    write_one(other)
    broken.taken_calls()
    record = write(broken.factory)

    assert len(broken.system_keys()) == 1
    assert other.get_session("p").decrypt(record) == b"x"
    assert broken.factory.system_keys._unstored == {}


def test_another_processes_key_that_comes_in_between_takes_its_place(broken: ReadOnlyWorld) -> None:
    """Between the look at the newest key and the attempt to store one."""
    fail(broken)
    broken.read_only = False
    store, other = broken.metastore.store, broken.new_process()

    def store_late(key_id: str, record: EnvelopeKeyRecord) -> bool:
        broken.metastore.store = store  # type: ignore[method-assign]
        write_one(other)
        return store(key_id, record)

    broken.metastore.store = store_late  # type: ignore[method-assign]
    record = write_one(broken.factory)

    assert len(broken.system_keys()) == 1
    assert other.get_session("p").decrypt(record) == b"x"
    assert broken.factory.system_keys._unstored == {}


def test_after_a_newer_key_was_revoked_another_is_made(broken: ReadOnlyWorld) -> None:
    fail(broken)
    broken.read_only = False
    write_one(broken.new_process())
    broken.metastore.revoke(KeyMeta(SK_ID, START))
    broken.taken_calls()
    write_one(broken.factory)

    assert broken.taken_calls()["wrap"] == 1
    assert list(broken.system_keys()) == [KeyMeta(SK_ID, START), KeyMeta(SK_ID, START + 1)]


@pytest.mark.parametrize(("later", "made"), [(90 * DAY, 1), (90 * DAY + 1, 2), (-MAX_SKEW, 1), (-MAX_SKEW - 1, 2)])
def test_it_is_stored_within_its_life_alone(broken: ReadOnlyWorld, later: float, made: int) -> None:
    fail(broken)
    broken.read_only = False
    broken.clock.now += later
    write_one(broken.factory)
    assert broken.calls["wrap"] == made


def test_a_kms_that_fails_leaves_nothing_to_store(broken: ReadOnlyWorld) -> None:
    broken.kms.down = True
    with pytest.raises(KMSError):
        write_one(broken.factory)
    assert broken.factory.system_keys._unstored == {}


def test_one_that_was_stored_although_the_metastore_did_not_say_so_is_the_key(broken: ReadOnlyWorld) -> None:
    broken.read_only, broken.answers_are_lost = False, True
    with pytest.raises(MetastoreError):
        write_one(broken.factory)
    broken.answers_are_lost = False
    record = write_one(broken.factory)

    assert (broken.calls["wrap"], broken.calls["unwrap"], len(broken.system_keys())) == (1, 1, 1)
    assert broken.new_process().get_session("p").decrypt(record) == b"x"


def test_a_renewal_that_can_not_be_stored_asks_for_one_key(broken: ReadOnlyWorld) -> None:
    world = ReadOnlyWorld(policy=CryptoPolicy(renew_ahead=10 * DAY, grace=DAY, revoke_check_interval=3600))
    write_one(world.factory)
    world.taken_calls()
    world.read_only = True
    world.clock.now = START + 90 * DAY + 1
    for _ in range(24):
        write_one(world.factory)
        world.clock.now += 3599
    assert world.calls["wrap"] == 1
    world.read_only = False
    world.clock.now += 3600
    write_one(world.factory)
    assert world.calls["wrap"] == 1
    assert len(world.system_keys()) == 2


def test_intermediate_keys_cost_the_kms_nothing(broken: ReadOnlyWorld) -> None:
    """They are sealed by a system key that is in hand, so a new one is made at each attempt."""
    broken.read_only = False
    broken.factory.get_session("other").encrypt(b"x")
    broken.read_only = True
    broken.taken_calls()
    fail(broken)
    broken.read_only = False
    write_one(broken.factory)
    calls = broken.taken_calls()
    assert (calls.get("wrap", 0), calls.get("unwrap", 0)) == (0, 0)
    assert IK_ID in {meta.key_id for meta in broken.metastore.records}


def test_forgetting_the_keys_forgets_it_too(broken: ReadOnlyWorld) -> None:
    fail(broken, attempts=1)
    broken.factory.clear()
    fail(broken, attempts=1)
    assert broken.calls["wrap"] == 2


def test_a_process_holds_one_for_itself(broken: ReadOnlyWorld) -> None:
    """Who looks with keys of their own has nothing of what the process could not store."""
    fail(broken, attempts=1)
    own = broken.factory.with_own_keys()
    assert own.system_keys._unstored == {}
