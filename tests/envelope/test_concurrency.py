"""Threads and forks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from django_asherah.envelope.interfaces import Event, KeyCreated
from django_asherah.envelope.policy import CryptoPolicy
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, decode_row
from django_asherah.envelope.session import SessionFactory
from django_asherah.exceptions import KMSError
from tests.envelope.fakes import DAY, IK_ID, SK_ID, START, World
from tests.forking import Fork, either_fork, in_child


def run_together(count: int, work: Any) -> list[Any]:
    """Run ``work(number)`` in ``count`` threads that start at the same moment."""
    barrier = threading.Barrier(count)

    def start(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(start, range(count)))


def test_64_threads_on_an_empty_table_make_one_key_of_each_kind(world: World) -> None:
    texts = run_together(64, lambda number: world.factory.get_session("p").encrypt(str(number).encode()))
    assert world.taken_calls() == {"load_latest": 2, "wrap": 1, "store": 2}
    assert [world.factory.get_session("p").decrypt(text) for text in texts] == [str(n).encode() for n in range(64)]


def test_64_threads_on_a_cold_cache_make_one_kms_call(world: World) -> None:
    texts = [world.factory.get_session(f"p{n % 4}").encrypt(b"x") for n in range(64)]
    cold = world.new_process()
    world.taken_calls()
    run_together(64, lambda number: cold.get_session(f"p{number % 4}").decrypt(texts[number]))
    assert world.taken_calls() == {"load": 5, "unwrap": 1}


def test_readers_and_writers_on_a_cold_cache_share_the_one_kms_call(world: World) -> None:
    text = world.factory.get_session("p").encrypt(b"x")
    cold = world.new_process()
    world.taken_calls()

    def work(number: int) -> Any:
        session = cold.get_session("p")
        return session.decrypt(text) if number % 2 else session.encrypt(b"y")

    run_together(32, work)
    assert world.taken_calls()["unwrap"] == 1


def test_one_thread_checks_a_stale_key_while_the_others_read_on(world: World) -> None:
    session = world.factory.get_session("p")
    text = session.encrypt(b"x")
    world.clock.now = START + 3600
    asked, answer = threading.Event(), threading.Event()
    load = world.metastore.load

    def slow_load(meta: KeyMeta) -> EnvelopeKeyRecord | None:
        asked.set()
        answer.wait()
        return load(meta)

    world.metastore.load = slow_load  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as pool:
        checking = pool.submit(session.decrypt, text)
        asked.wait()
        for _ in range(10):
            assert session.decrypt(text) == b"x"
        answer.set()
        assert checking.result() == b"x"


def test_a_reader_waits_for_another_that_loads_its_key_and_takes_the_same(world: World) -> None:
    text = world.factory.get_session("p").encrypt(b"x")
    cold = world.new_process()
    world.taken_calls()
    load, lock_of = world.metastore.load, cold.intermediate_keys.cache.loading
    locks: list[Any] = []
    both_came = threading.Event()

    def counted_lock_of(key_id: str) -> Any:
        locks.append(lock_of(key_id))
        if len(locks) == 2:
            both_came.set()
        return locks[-1]

    def slow_load(meta: KeyMeta) -> EnvelopeKeyRecord | None:
        assert both_came.wait(30)
        return load(meta)

    cold.intermediate_keys.cache.loading = counted_lock_of  # type: ignore[method-assign]
    world.metastore.load = slow_load  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(cold.get_session("p").decrypt, text) for _ in range(2)]
        assert [reader.result(30) for reader in readers] == [b"x", b"x"]
    assert world.taken_calls() == {"load": 2, "unwrap": 1}


def test_a_listener_that_encrypts_does_not_wait_for_itself() -> None:
    world = World()
    heard: list[KeyMeta] = []
    other: list[SessionFactory] = []

    def listen(event: Event) -> None:
        if isinstance(event, KeyCreated) and not heard:
            heard.append(event.meta)
            other[0].get_session("audit").encrypt(b"a key was made")

    other.append(
        SessionFactory(
            "svc", "prod", world.metastore, world.kms, clock=world.clock, timer=world.clock, on_event=listen
        ),
    )
    assert other[0].get_session("p").encrypt(b"x")
    assert heard == [KeyMeta(SK_ID, START)]


def _use(factory: SessionFactory, text: str) -> tuple[bytes, str]:
    session = factory.get_session("p")
    (meta,) = factory.load_keys([decode_row(text).key.parent_key_meta, KeyMeta("_IK_lost_svc_prod", START)])
    keys = factory.current_keys(["q", "p"])
    assert [key.meta.key_id for key in keys.values()] == ["_IK_q_svc_prod", meta.key_id]
    return session.decrypt(text), session.encrypt(b"from the child", keys["p"])


@either_fork
def test_a_child_after_a_fork_encrypts_and_decrypts_while_the_parent_holds_every_lock(world: World, fork: Fork) -> None:
    text = world.factory.get_session("p").encrypt(b"from the parent")
    world.clock.now = START + 3600  # the child must check, and so wants the locks
    locked, release = threading.Event(), threading.Event()

    def hold_locks() -> None:
        caches = [world.factory.intermediate_keys.cache, world.factory.system_keys.cache]
        locks = [caches[0].loading(IK_ID), caches[1].loading(SK_ID), *(cache._locks.get().guard for cache in caches)]
        locks += [
            ring._unavailable._lock.get() for ring in (world.factory.intermediate_keys, world.factory.system_keys)
        ]
        for lock in locks:
            lock.acquire()
        locked.set()
        release.wait()
        for lock in locks:
            lock.release()

    holder = threading.Thread(target=hold_locks)
    holder.start()
    locked.wait()
    plaintext, written = in_child(fork, lambda: _use(world.factory, text))
    release.set()
    holder.join()
    assert plaintext == b"from the parent"
    assert decode_row(written).key.parent_key_meta == KeyMeta(IK_ID, START)
    assert world.factory.get_session("p").decrypt(written) == b"from the child"


class TestWaitingForAnotherThread:
    """Whoever needs a key that another thread is loading waits a bounded time, however long that thread does."""

    @pytest.fixture
    def hurried(self) -> World:
        return World(loading_timeout=0.01)

    @pytest.fixture
    def stalled(self, hurried: World) -> Iterator[Callable[[str, Callable[[], Any]], Any]]:
        """Do something in another thread until it stands still in a call of the metastore or the KMS."""
        asked, answer = threading.Event(), threading.Event()
        with ThreadPoolExecutor(1) as pool:

            def stall(method: str, work: Callable[[], Any]) -> Any:
                where = hurried.kms if method.endswith("crypt_key") else hurried.metastore
                original = getattr(where, method)

                def slow(*arguments: Any) -> Any:
                    asked.set()
                    answer.wait(60)
                    return original(*arguments)

                setattr(where, method, slow)
                future = pool.submit(work)
                assert asked.wait(60)
                setattr(where, method, original)
                return future

            yield stall
            answer.set()

    @pytest.mark.parametrize("method", ["load", "decrypt_key"])
    @pytest.mark.parametrize("wanted", ["decrypt", "encrypt", "current_keys"])
    def test_a_key_that_is_not_cached_is_an_error_that_says_so(
        self, hurried: World, stalled: Any, wanted: str, method: str
    ) -> None:
        text = hurried.factory.get_session("p").encrypt(b"x")
        cold = hurried.new_process()
        session = cold.get_session("p")
        stalled(method, lambda: session.decrypt(text))
        works: dict[str, Callable[[], Any]] = {
            "decrypt": lambda: session.decrypt(text),
            "encrypt": lambda: session.encrypt(b"y"),
            "current_keys": lambda: cold.current_keys(["p"]),
        }
        with pytest.raises(KMSError, match=f"key {IK_ID} could not be had: another thread .* more than 0.01 seconds"):
            works[wanted]()

    def test_many_keys_are_loaded_without_it(self, hurried: World, stalled: Any) -> None:
        text = hurried.factory.get_session("p").encrypt(b"x")
        cold = hurried.new_process()
        stalled("load", lambda: cold.get_session("p").decrypt(text))
        assert cold.load_keys([KeyMeta(IK_ID, START)]) == {}

    @pytest.mark.parametrize("partition", ["p", "q"])
    def test_another_partition_waits_for_their_common_system_key_no_longer(
        self, hurried: World, stalled: Any, partition: str
    ) -> None:
        texts = {name: hurried.factory.get_session(name).encrypt(b"x") for name in "pq"}
        cold = hurried.new_process()
        stalled("decrypt_key", lambda: cold.get_session("p").decrypt(texts["p"]))
        with pytest.raises(KMSError, match="another thread"):
            cold.get_session(partition).decrypt(texts[partition])

    def test_a_valid_key_that_another_checks_takes_writes_without_the_check(self, hurried: World, stalled: Any) -> None:
        session = hurried.factory.get_session("p")
        text = session.encrypt(b"x")
        hurried.clock.now = START + 3600
        checking = stalled("load_latest", lambda: session.encrypt(b"y"))
        assert decode_row(session.encrypt(b"z")).key.parent_key_meta == KeyMeta(IK_ID, START)
        assert session.decrypt(text) == b"x"
        assert not checking.done()

    def test_an_expired_key_does_not(self, hurried: World, stalled: Any) -> None:
        session = hurried.factory.get_session("p")
        session.encrypt(b"x")
        hurried.clock.now = START + 91 * DAY
        stalled("load_latest", lambda: session.encrypt(b"y"))
        with pytest.raises(KMSError, match="another thread"):
            session.encrypt(b"z")


class TestCallersThatMayNotWait:
    """A caller that holds what others wait for (a pooler's connection) reads for itself, whoever else is reading."""

    @pytest.fixture
    def lending(self) -> World:
        found = World(loading_timeout=0.01)
        found.metastore.may_wait = lambda: not threading.current_thread().name.startswith("holding")  # type: ignore[attr-defined]
        found.factory = found.new_process()
        return found

    @staticmethod
    def while_another_reads(world: World, method: str, other: Callable[[], Any], work: Callable[[], Any]) -> Any:
        """Return what ``work`` does in a thread that may not wait, while another stands still in the metastore."""
        asked, answer = threading.Event(), threading.Event()
        original = getattr(world.metastore, method)

        def slow(*arguments: Any) -> Any:
            if not threading.current_thread().name.startswith("holding"):
                asked.set()
                assert answer.wait(60)
            return original(*arguments)

        setattr(world.metastore, method, slow)
        with ThreadPoolExecutor(1) as others, ThreadPoolExecutor(1, thread_name_prefix="holding") as holding:
            reading = others.submit(other)
            assert asked.wait(60)
            try:
                return holding.submit(work).result(60)
            finally:
                answer.set()
                reading.result(60)

    @pytest.mark.parametrize("wanted", ["decrypt", "encrypt", "load_keys", "current_keys"])
    @pytest.mark.parametrize("age", [0, 3600], ids=["cold", "due for its check"])
    @pytest.mark.parametrize("method", ["load", "load_latest"])
    def test_they_have_a_key_that_is_there(self, lending: World, method: str, age: int, wanted: str) -> None:
        text = lending.factory.get_session("p").encrypt(b"x")
        cold = lending.new_process()
        session = cold.get_session("p")
        if age:
            session.encrypt(b"makes the process warm")
        lending.clock.now = START + age
        works: dict[str, Callable[[], Any]] = {
            "decrypt": lambda: session.decrypt(text) == b"x",
            "encrypt": lambda: cold.get_session("p").decrypt(session.encrypt(b"y")) == b"y",
            "load_keys": lambda: list(cold.load_keys([KeyMeta(IK_ID, START)])) == [KeyMeta(IK_ID, START)],
            "current_keys": lambda: cold.current_keys(["p"])["p"].meta == KeyMeta(IK_ID, START),
        }
        others = {"load": lambda: session.decrypt(text), "load_latest": lambda: session.encrypt(b"z")}
        assert self.while_another_reads(lending, method, others[method], works[wanted])

    def test_64_of_them_on_a_cold_cache_make_one_kms_call(self) -> None:
        world = World()
        world.metastore.may_wait = lambda: False  # type: ignore[attr-defined]
        texts = [world.factory.get_session(f"p{n % 4}").encrypt(b"x") for n in range(64)]
        cold = world.new_process()
        world.taken_calls()

        def work(number: int) -> None:
            session = cold.get_session(f"p{number % 4}")
            assert session.decrypt(texts[number]) == b"x"
            assert session.decrypt(session.encrypt(b"y")) == b"y"

        run_together(64, work)
        assert world.taken_calls()["unwrap"] == 1

    @pytest.mark.parametrize("wanted", ["one", "many"])
    def test_64_of_them_on_an_empty_table_make_one_key_of_each_kind(self, wanted: str) -> None:
        world = World()
        world.metastore.may_wait = lambda: False  # type: ignore[attr-defined]
        factory = world.new_process()

        def work(number: int) -> KeyMeta:
            return (factory.get_session("p").newest_key() if wanted == "one" else factory.current_keys(["p"])["p"]).meta

        assert set(run_together(64, work)) == {KeyMeta(IK_ID, START)}
        calls = world.taken_calls()
        assert (calls["wrap"], calls.get("store", 0) + calls.get("store_many", 0)) == (1, 2)

    @pytest.mark.parametrize("wanted", ["one", "many"])
    def test_a_revocation_is_noticed(self, wanted: str) -> None:
        world = World()
        world.metastore.may_wait = lambda: False  # type: ignore[attr-defined]
        factory = world.new_process()
        factory.get_session("p").encrypt(b"x")
        world.metastore.revoke(KeyMeta(IK_ID, START))
        world.clock.now = START + 3600
        key = factory.get_session("p").newest_key() if wanted == "one" else factory.current_keys(["p"])["p"]
        assert key.meta == KeyMeta(IK_ID, START + 3600)

    @pytest.mark.parametrize("wanted", ["one", "many"])
    def test_a_key_near_its_end_is_followed_by_one_of_them(self, wanted: str) -> None:
        world = World(policy=CryptoPolicy(renew_ahead=90 * DAY))
        world.metastore.may_wait = lambda: False  # type: ignore[attr-defined]
        factory = world.new_process()
        factory.get_session("p").encrypt(b"x")
        world.clock.now = START + 90 * DAY - 60

        def work(number: int) -> KeyMeta:
            return (factory.get_session("p").newest_key() if wanted == "one" else factory.current_keys(["p"])["p"]).meta

        world.taken_calls()
        assert {meta.key_id for meta in run_together(16, work)} == {IK_ID}
        calls = world.taken_calls()
        assert calls["wrap"] == 1
        assert KeyMeta(IK_ID, START + 90 * DAY - 60) in world.metastore.records
