"""Keys that are due where nobody may wait for a look at their records: a thread has it, and the key in hand serves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_asherah.envelope.checks import BackgroundChecks, Threads, runs_loop
from django_asherah.envelope.loading import RETRY_AFTER
from django_asherah.envelope.policy import CryptoPolicy
from django_asherah.envelope.records import KeyMeta
from django_asherah.envelope.session import Session
from django_asherah.exceptions import DecryptionError, EncryptionError, KeyNotFoundError, KMSError, MetastoreError
from tests.databases import wait_until
from tests.envelope.fakes import DAY, IK_ID, SK_ID, START, World
from tests.forking import Fork, either_fork, in_child

HOUR = 60 * 60


class Loop:
    """A thread that must not wait, as long as it is ``on``; what is checked elsewhere can be held up."""

    def __init__(self) -> None:
        self.on = False
        self.ours = threading.current_thread()
        self.closed = 0
        self.gate = threading.Event()
        self.gate.set()
        self.ran_in: set[str] = set()

    def must_not_wait(self) -> bool:
        return self.on and threading.current_thread() is self.ours

    async def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.to_thread(work, *arguments)

    def close(self) -> None:
        self.closed += 1

    def threads(self) -> Threads:
        return Threads(self.must_not_wait, self.run, self.close)


class WaitingWorld(World):
    """A world whose metastore waits for a gate where somebody else than the test's thread asks it."""

    def __init__(self, loop: Loop, **options: Any) -> None:
        super().__init__(threads=loop.threads(), **options)
        self.loop = loop
        for fake, name in ((self.metastore, "_called"), (self.kms, "_called")):
            setattr(fake, name, self._gated(getattr(fake, name)))

    def _gated(self, called: Callable[[str], None]) -> Callable[[str], None]:
        def wait(name: str) -> None:
            if threading.current_thread() is not self.loop.ours:
                assert self.loop.gate.wait(30)
                self.loop.ran_in.add(threading.current_thread().name)
            elif self.loop.on:
                raise LookupError("the thread that must not wait was made to")
            called(name)

        return wait

    def stall_stores(self) -> tuple[threading.Event, threading.Event]:
        """Let the metastore store no key before the second event; the first tells that it was asked to."""
        stalled, go_on, store = threading.Event(), threading.Event(), self.metastore.store_many

        def slow_store(key_id: str, stored: Any) -> bool:
            stalled.set()
            assert go_on.wait(30)
            return store({KeyMeta(key_id, stored.created): stored}) != set()

        self.metastore.store = slow_store  # type: ignore[method-assign]
        return stalled, go_on

    def settle(self) -> None:
        """Wait until every check is done."""
        rings = (self.factory.intermediate_keys, self.factory.system_keys)
        wait_until(lambda: not any(ring._checks._pending.get().checks for ring in rings))


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.gate.set()


@pytest.fixture
def waiting(loop: Loop) -> WaitingWorld:
    return WaitingWorld(loop, policy=CryptoPolicy(grace=DAY, renew_ahead=0))


def warm(world: WaitingWorld) -> tuple[Session, str]:
    session = world.factory.get_session("p")
    record = session.encrypt(b"x")
    world.loop.on = True
    world.taken_calls()
    return session, record


def newest(world: World, key_id: str) -> KeyMeta:
    return max((meta for meta in world.metastore.records if meta.key_id == key_id), key=lambda meta: meta.created)


def sealed_under(session: Session, record: str) -> KeyMeta:
    return session.read(record).key.parent_key_meta


def test_a_key_that_is_due_serves_while_its_check_is_held_up(waiting: WaitingWorld) -> None:
    session, record = warm(waiting)
    waiting.loop.gate.clear()
    waiting.clock.now += HOUR

    for _ in range(50):
        assert session.decrypt(record) == b"x"
        assert session.decrypt(session.encrypt(b"y")) == b"y"
    assert waiting.taken_calls() == {}

    waiting.loop.gate.set()
    waiting.settle()
    assert waiting.taken_calls() == {"load_latest": 1, "load": 1}  # Its own record, and its system key's.
    assert (waiting.loop.ran_in, waiting.loop.closed) == ({"django_asherah.checks"}, 1)


def test_after_its_check_the_key_is_trusted_for_the_whole_interval(waiting: WaitingWorld) -> None:
    session, record = warm(waiting)
    waiting.clock.now += HOUR
    session.decrypt(record)
    waiting.settle()
    waiting.taken_calls()
    waiting.clock.now += HOUR - 1

    assert session.decrypt(session.encrypt(b"y")) == b"y"
    waiting.settle()
    assert waiting.taken_calls() == {}


@pytest.mark.parametrize("level", [IK_ID, SK_ID])
@pytest.mark.parametrize("use", ["read", "write"])
def test_a_revocation_is_noticed_and_a_new_key_takes_the_writes(waiting: WaitingWorld, level: str, use: str) -> None:
    session, record = warm(waiting)
    old = newest(waiting, IK_ID)
    waiting.metastore.revoke(newest(waiting, level))
    waiting.clock.now += HOUR

    if use == "read":
        session.decrypt(record)
    else:
        assert sealed_under(session, session.encrypt(b"y")) == old
    waiting.settle()

    new = sealed_under(session, session.encrypt(b"z"))
    assert new == newest(waiting, IK_ID) != old
    assert session.decrypt(record) == b"x"


@pytest.mark.parametrize("level", [IK_ID, SK_ID])
def test_writes_go_on_while_the_key_that_follows_a_revoked_one_is_made(waiting: WaitingWorld, level: str) -> None:
    """Between the revocation's being noticed and the new key there is no moment without a key."""
    session, record = warm(waiting)
    waiting.metastore.revoke(newest(waiting, level))
    waiting.clock.now += HOUR
    stalled, go_on = waiting.stall_stores()
    session.decrypt(record)
    assert stalled.wait(30)
    assert session.decrypt(session.encrypt(b"y")) == b"y"
    go_on.set()
    waiting.settle()

    assert sealed_under(session, session.encrypt(b"z")) == newest(waiting, IK_ID)


def test_a_revoked_key_that_nothing_can_follow_takes_no_writes(waiting: WaitingWorld) -> None:
    session, record = warm(waiting)
    waiting.metastore.revoke(newest(waiting, SK_ID))
    waiting.kms.down = True
    waiting.clock.now += HOUR
    session.encrypt(b"y")
    waiting.settle()

    with pytest.raises(LookupError, match="must not wait"):
        session.encrypt(b"z")
    assert session.decrypt(record) == b"x"
    with pytest.raises(KMSError):
        asyncio.run(session.aencrypt(b"z"))


def test_what_is_awaited_is_sealed_under_no_key_that_was_found_revoked(waiting: WaitingWorld) -> None:
    session, record = warm(waiting)
    old = newest(waiting, IK_ID)
    waiting.metastore.revoke(old)
    waiting.clock.now += HOUR
    stalled, go_on = waiting.stall_stores()

    async def work() -> list[Any]:
        calls = [asyncio.create_task(call(b"y")) for call in (session.aencrypt, session.aencrypt_compact)]
        await asyncio.sleep(0)
        go_on.set()
        return await asyncio.gather(*calls)

    session.decrypt(record)
    assert stalled.wait(30)
    sealed = asyncio.run(work())
    waiting.settle()
    assert [sealed_under(session, each) for each in sealed] == [newest(waiting, IK_ID)] * 2
    assert newest(waiting, IK_ID) != old


@pytest.mark.parametrize("gone", [[IK_ID], [SK_ID], [IK_ID, SK_ID]], ids=",".join)
@pytest.mark.parametrize("is_kms_down", [True, False])
def test_a_key_whose_row_is_gone_takes_no_writes_though_nothing_can_follow_it(
    waiting: WaitingWorld, gone: list[str], is_kms_down: bool
) -> None:
    """After a restart, nobody could read what it had sealed."""
    session, _ = warm(waiting)
    for key_id in gone:
        del waiting.metastore.records[newest(waiting, key_id)]
    if is_kms_down and SK_ID in gone:
        waiting.factory.system_keys.require_checks()
        waiting.kms.down = True
    else:
        waiting.metastore.store = refuse_to_store  # type: ignore[method-assign]
    waiting.clock.now += HOUR
    session.encrypt(b"y")
    waiting.settle()

    for _ in range(3):
        with pytest.raises(LookupError, match="must not wait"):
            session.encrypt(b"z")
        with pytest.raises((KMSError, MetastoreError)):
            asyncio.run(session.aencrypt(b"z"))
        waiting.settle()
        waiting.clock.now += RETRY_AFTER


def refuse_to_store(*arguments: Any) -> Any:
    raise MetastoreError("read-only")


def test_a_check_that_never_ends_lets_a_key_serve_no_longer_than_its_grace(loop: Loop) -> None:
    waiting = WaitingWorld(loop, policy=CryptoPolicy(grace=DAY, renew_ahead=0), loading_timeout=0.01)
    session, _ = warm(waiting)
    stalled, go_on = threading.Event(), threading.Event()

    def stall(key_id: str) -> None:
        stalled.set()
        assert go_on.wait(30)

    waiting.metastore.load_latest = stall  # type: ignore[method-assign]
    waiting.clock.now += HOUR
    session.encrypt(b"y")
    assert stalled.wait(30)
    waiting.clock.now = START + 91 * DAY
    session.encrypt(b"y")
    waiting.clock.now += 1

    with pytest.raises(KMSError, match="another thread has been loading or making it"):
        session.encrypt(b"y")
    go_on.set()
    waiting.settle()


def test_a_metastore_that_fails_is_asked_again_in_a_minute(waiting: WaitingWorld) -> None:
    session, record = warm(waiting)
    waiting.metastore.down = True
    waiting.clock.now += HOUR
    for _ in range(3):
        for _ in range(20):
            session.decrypt(session.encrypt(b"y"))
        waiting.settle()
        assert sum(waiting.taken_calls().values()) == 1
        session.decrypt(session.encrypt(b"y"))
        waiting.settle()
        assert waiting.taken_calls() == {}
        waiting.clock.now += RETRY_AFTER
    assert session.decrypt(record) == b"x"


def test_a_check_that_fails_otherwise_is_logged_and_tried_again_in_a_minute(
    waiting: WaitingWorld, caplog: pytest.LogCaptureFixture
) -> None:
    session, record = warm(waiting)

    def fail(*arguments: Any) -> None:
        waiting.calls["failed"] += 1
        raise RuntimeError("of another kind")

    waiting.metastore.load_latest = fail  # type: ignore[assignment]
    waiting.clock.now += HOUR
    for _ in range(2):
        for _ in range(20):
            session.decrypt(session.encrypt(b"y"))
        waiting.settle()
    assert waiting.taken_calls() == {"failed": 1}
    assert caplog.messages == [f"a check of key {IK_ID} failed: RuntimeError: of another kind"]
    assert session.decrypt(record) == b"x"


def test_a_key_whose_row_is_gone_is_let_go(waiting: WaitingWorld) -> None:
    session, record = warm(waiting)
    waiting.metastore.records.clear()
    waiting.clock.now += HOUR
    session.decrypt(record)
    waiting.settle()

    with pytest.raises(LookupError, match="must not wait"):
        session.decrypt(record)
    with pytest.raises(KeyNotFoundError):
        asyncio.run(session.adecrypt(record))
    assert sealed_under(session, session.encrypt(b"y")) == newest(waiting, IK_ID)


@pytest.mark.parametrize(("age", "serves"), [(90 * DAY, True), (91 * DAY, True), (91 * DAY + 1, False)])
def test_an_expired_key_serves_within_its_grace_and_is_renewed(waiting: WaitingWorld, age: int, serves: bool) -> None:
    session, _ = warm(waiting)
    old = newest(waiting, IK_ID)
    waiting.clock.now = START + age + (0 if age > 90 * DAY else 1)

    if not serves:
        with pytest.raises(LookupError, match="must not wait"):
            session.encrypt(b"y")
        return
    assert sealed_under(session, session.encrypt(b"y")) == old
    waiting.settle()
    assert sealed_under(session, session.encrypt(b"z")) == newest(waiting, IK_ID) != old


def test_an_older_key_is_checked_too(waiting: WaitingWorld) -> None:
    session = waiting.factory.get_session("p")
    record = session.encrypt(b"x")
    waiting.factory.intermediate_keys.rotate(IK_ID)
    warm(waiting)
    waiting.clock.now += HOUR

    assert session.decrypt(record) == b"x"
    waiting.settle()
    assert waiting.taken_calls() == {"load": 1}
    assert session.decrypt(record) == b"x"
    waiting.settle()
    assert waiting.taken_calls() == {}


def test_keys_that_are_uncommitted_or_not_cached_are_asked_for_at_once(waiting: WaitingWorld) -> None:
    session, record = warm(waiting)
    waiting.factory.clear()

    for work in (lambda: session.encrypt(b"y"), lambda: session.decrypt(record)):
        with pytest.raises(LookupError, match="must not wait"):
            work()


def test_many_keys_are_in_hand_as_one_is(waiting: WaitingWorld) -> None:
    names = [f"p{number}" for number in range(20)]
    keys = waiting.factory.current_keys(names)
    metas = [key.meta for key in keys.values()]
    waiting.loop.on = True
    waiting.taken_calls()
    waiting.loop.gate.clear()
    waiting.clock.now += HOUR

    assert waiting.factory.current_keys(names) == keys
    assert list(waiting.factory.load_keys(metas).values()) == list(keys.values())
    assert waiting.taken_calls() == {}
    waiting.loop.gate.set()
    waiting.settle()
    assert waiting.taken_calls() == {"load_latest": 20, "load": 1}
    assert waiting.loop.closed == 1  # One thread for all of them.
    assert waiting.factory.current_keys(names) == keys
    with pytest.raises(LookupError, match="must not wait"):
        waiting.factory.current_keys(["another"])


def test_a_reset_while_a_key_is_checked_loads_nothing_again(waiting: WaitingWorld) -> None:
    session, record = warm(waiting)
    ring = waiting.factory.intermediate_keys
    waiting.clock.now += HOUR
    with ring._loading(IK_ID):
        session.decrypt(record)
        waiting.factory.clear()
    waiting.settle()
    assert (waiting.taken_calls(), len(ring)) == ({}, 0)


class TestAsyncCalls:
    def test_what_is_in_hand_takes_no_thread(self, waiting: WaitingWorld) -> None:
        session, record = warm(waiting)

        async def work() -> None:
            sealed = await session.aencrypt(b"y")
            compact = await session.aencrypt_compact(b"z")
            assert [await session.adecrypt(each) for each in (record, sealed, compact)] == [b"x", b"y", b"z"]

        asyncio.run(work())
        assert waiting.loop.ran_in == set()

    def test_what_is_not_takes_one(self, waiting: WaitingWorld) -> None:
        session, record = warm(waiting)

        async def work() -> None:
            waiting.factory.clear()
            sealed = await session.aencrypt(b"y")
            waiting.factory.clear()
            compact = await session.aencrypt_compact(b"z")
            waiting.factory.clear()
            assert (
                await asyncio.gather(*map(session.adecrypt, [record, sealed, compact] * 50)) == [b"x", b"y", b"z"] * 50
            )

        asyncio.run(work())
        assert waiting.taken_calls()["unwrap"] == 3

    def test_what_is_refused_is_refused_as_ever(self, waiting: WaitingWorld) -> None:
        session, record = warm(waiting)
        other = waiting.factory.get_session("other")
        for refused in (b"no record", "no record", record[:-3] + 'A"}', 5):
            with pytest.raises(DecryptionError) as expected:
                session.decrypt(refused)  # type: ignore[arg-type]
            with pytest.raises(type(expected.value)) as caught:
                asyncio.run(session.adecrypt(refused))  # type: ignore[arg-type]
            assert str(caught.value) == str(expected.value)
        with pytest.raises(DecryptionError, match="this partition's key is"):
            asyncio.run(other.adecrypt(record))
        for call in (session.aencrypt, session.aencrypt_compact):
            with pytest.raises(EncryptionError, match="only bytes"):
                asyncio.run(call("text"))  # type: ignore[arg-type]
        waiting.factory.clear()
        waiting.metastore.down = True
        with pytest.raises(MetastoreError):
            asyncio.run(session.aencrypt(b"y"))

    def test_a_cancelled_call_leaves_no_lock_and_no_half_made_key(self, waiting: WaitingWorld) -> None:
        waiting.loop.on = True
        waiting.loop.gate.clear()
        session = waiting.factory.get_session("p")

        async def work() -> bytes:
            task = asyncio.create_task(session.aencrypt(b"x"))
            while not waiting.factory.intermediate_keys.cache._locks.get().loading:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            waiting.loop.gate.set()
            return await session.adecrypt(await session.aencrypt(b"y"))

        assert asyncio.run(work()) == b"y"
        assert len(waiting.metastore.records) == 2
        assert waiting.calls["wrap"] == 1


def test_a_factory_of_its_own_keeps_out_of_a_loop_too() -> None:
    """Without Django: by asyncio alone."""
    world = World()
    session = world.factory.get_session("p")

    async def work() -> None:
        assert runs_loop()
        record = await session.aencrypt(b"x")
        world.metastore.down = True
        world.clock.now += HOUR
        assert session.decrypt(record) == b"x"
        assert session.decrypt(session.encrypt(b"y")) == b"y"

    asyncio.run(work())
    assert not runs_loop()


class TestBackgroundChecks:
    def test_each_name_is_checked_once_at_a_time(self) -> None:
        checks, gate, ran = BackgroundChecks(lambda: None), threading.Event(), []
        for number in range(10):
            checks.start("a", lambda number=number: (gate.wait(30), ran.append(number)))  # type: ignore[misc]
            checks.start("b", lambda number=number: ran.append(number))  # type: ignore[misc]
        assert checks.is_under_way("a")
        gate.set()
        wait_until(lambda: not checks.is_under_way("b"))
        assert ran == [0, 0]

    def test_no_check_is_lost_as_a_thread_ends(self) -> None:
        ended, ran = [], []
        checks = BackgroundChecks(lambda: ended.append(threading.current_thread()))
        for number in range(500):
            checks.start(number, lambda number=number: ran.append(number))  # type: ignore[misc]
        wait_until(lambda: not checks._pending.get().checks)
        assert ran == list(range(500))

    def test_without_a_thread_to_be_had_nothing_fails_and_the_next_tries_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        checks, ran = BackgroundChecks(lambda: None), threading.Event()
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            checks.start("a", ran.set)
            assert not checks.is_under_way("a")
        checks.start("a", ran.set)
        assert ran.wait(30)

    @either_fork
    def test_a_forked_child_has_no_check_under_way(self, fork: Fork) -> None:
        checks, gate = BackgroundChecks(lambda: None), threading.Event()
        checks.start("a", lambda: gate.wait(30) and None)

        def check_again() -> bool:
            ran = threading.Event()
            was_under_way = checks.is_under_way("a")
            checks.start("a", ran.set)
            return ran.wait(20) and not was_under_way

        try:
            assert in_child(fork, check_again)
        finally:
            gate.set()
