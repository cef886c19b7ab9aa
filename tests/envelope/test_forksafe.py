"""What a forked child has of its own, whether or not Python heard of the fork."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from django_asherah import botoclient, engine
from django_asherah.botoclient import BotoClient
from django_asherah.deadlines import Deadlines
from django_asherah.envelope.aead import KEY_LENGTH, NONCE_LENGTH, Cipher
from django_asherah.envelope.cache import KeyCache
from django_asherah.envelope.forksafe import PerProcess, any_fraction
from django_asherah.envelope.interfaces import RecordRefused
from django_asherah.envelope.keys import CryptoKey
from django_asherah.envelope.native import make_cipher
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta
from django_asherah.envelope.unavailable import Unavailable
from django_asherah.exceptions import KMSError
from django_asherah.fields import attribute
from django_asherah.kms.multi_region import MultiRegionKMS
from django_asherah.kms.static import StaticKMS
from django_asherah.metastores.memory import MemoryMetastore
from django_asherah.refusals import Refusals
from tests.forking import Fork, either_fork, in_child
from tests.kms.modules import KEY, NAMES, Module, Modules
from tests.testapp.models import Document

META = KeyMeta("_IK_p_s_p", 60)


def is_free(lock: threading.Lock) -> bool:
    """Tell whether another thread could take it now."""
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(lock.acquire, False).result(30)
    if taken:
        lock.release()
    return taken


@contextmanager
def held_by_another_thread(lock: AbstractContextManager[Any]) -> Iterator[None]:
    """Have another thread hold a lock during the block."""
    locked, release = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            locked.set()
            release.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert locked.wait(30)
    try:
        yield
    finally:
        release.set()
        holder.join()


class TestPerProcess:
    def test_a_process_has_one_that_is_made_when_it_is_first_asked_for(self) -> None:
        made: list[object] = []
        own = PerProcess(lambda: made.append(object()) or made[-1])
        assert made == []
        assert own.get() is own.get() is made[0]
        assert len(made) == 1

    @either_fork
    def test_a_child_and_its_own_child_have_others(self, fork: Fork) -> None:
        own = PerProcess(os.getpid)

        def look() -> tuple[int, int]:
            return own.get(), os.getpid()

        parent = own.get()
        (child, pid), (grandchild, its_pid) = in_child(fork, lambda: (look(), in_child(fork, look)))
        assert (child, grandchild, own.get()) == (pid, its_pid, parent)
        assert len({parent, child, grandchild}) == 3

    @either_fork
    def test_threads_that_come_first_in_a_child_agree_on_one(self, fork: Fork) -> None:
        holders = [PerProcess(object) for _ in range(200)]
        for holder in holders:
            holder.get()

        def look_in_threads() -> list[int]:
            barrier = threading.Barrier(4)

            def look(number: int) -> list[object]:
                barrier.wait(30)
                return [holder.get() for holder in holders]

            with ThreadPoolExecutor(4) as pool:
                found = list(pool.map(look, range(4)))
            return [len(set(map(id, same))) for same in zip(*found, strict=True)]

        assert in_child(fork, look_in_threads) == [1] * 200

    @either_fork
    def test_what_could_not_be_made_in_a_child_is_made_for_the_next_who_asks(self, fork: Fork) -> None:
        parent, failures = os.getpid(), [ConnectionError("there is nobody to connect to")]

        def make() -> str:
            if os.getpid() != parent and failures:
                raise failures.pop()
            return f"made by {'the parent' if os.getpid() == parent else 'the child'}"

        def ask_twice() -> tuple[str, str]:
            with pytest.raises(ConnectionError) as caught:
                own.get()
            return str(caught.value), own.get()

        own = PerProcess(make)
        assert own.get() == "made by the parent"
        assert in_child(fork, ask_twice) == ("there is nobody to connect to", "made by the child")
        assert own.get() == "made by the parent"

    @either_fork
    def test_a_child_ends_nothing_that_is_its_parents(self, fork: Fork) -> None:
        ended: list[int] = []

        class Client:
            def __del__(self) -> None:
                ended.append(os.getpid())

        own = PerProcess(Client)
        own.get()

        def begin() -> list[int]:
            own.get()
            gc.collect()
            return ended

        assert in_child(fork, begin) == []

    def test_a_lock_is_held_by_one_thread_at_a_time_and_given_back_by_a_block_that_fails(self) -> None:
        lock = PerProcess(threading.Lock)
        with pytest.raises(RuntimeError, match="fails"), lock.get():
            assert not is_free(lock.get())
            raise RuntimeError("the block fails")
        assert is_free(lock.get())

    @either_fork
    def test_a_lock_is_free_in_a_child_and_held_in_its_parent(self, fork: Fork) -> None:
        lock = PerProcess(threading.Lock)
        with held_by_another_thread(lock.get()):
            assert in_child(fork, lambda: is_free(lock.get()))
            assert not is_free(lock.get())

    @either_fork
    def test_who_forks_inside_of_a_block_leaves_it_in_both_processes(self, fork: Fork) -> None:
        lock = PerProcess(threading.Lock)

        def leave_and_return() -> bool:
            entered.__exit__(None, None, None)
            with lock.get():
                return not is_free(lock.get())

        entered = lock.get()
        with entered:
            assert in_child(fork, leave_and_return)
            assert not is_free(lock.get())
        assert is_free(lock.get())


def read_document() -> tuple[Any, Callable[[], Any]]:
    """Return the lock of documents that are read, and what reads one that was loaded before."""
    Document.objects.create(doc={"a": 1})
    loaded = Document.objects.get()
    return attribute._keeping.get(), lambda: loaded.doc


def of_a_cache(take: Callable[[KeyCache], Any]) -> tuple[Any, Callable[[], Any]]:
    """Return a lock of a key cache, and what uses the cache as whoever loads a key does."""
    cache = KeyCache(10)
    key = CryptoKey(META, EnvelopeKeyRecord(created=60, key=bytes(60)), Cipher(KEY))

    def load() -> bool:
        with cache.loading(META.key_id):
            cache.put(key)
            cache.make_current(key)
        return cache.current(META.key_id) is cache.get(META) is key

    return take(cache), load


def of_memory(metastore: MemoryMetastore) -> tuple[Any, Callable[[], Any]]:
    return metastore._lock.get(), lambda: metastore.load_latest("_SK_s_p")


def of_unavailable_keys(keys: Unavailable) -> tuple[Any, Callable[[], Any]]:
    return keys._lock.get(), lambda: (keys.add(META, 0.0), keys.has(META, 1.0))[1]


def of_refusals(refusals: Refusals) -> tuple[Any, Callable[[], Any]]:
    return refusals._lock.get(), lambda: refusals.tell(RecordRefused("_IK_p_s_p", 60, "damaged"))


def of_deadlines(deadlines: Deadlines) -> tuple[Any, Callable[[], Any]]:
    return deadlines._left.get().lock, lambda: deadlines.within(30, lambda: "an answer")


def of_health(kms: MultiRegionKMS) -> tuple[Any, Callable[[], Any]]:
    return kms._own.health._lock, lambda: kms.decrypt_key(kms.encrypt_key(KEY))


def of_boto() -> tuple[Any, Callable[[], Any]]:
    client = BotoClient("kms", session=Session, region="eu-west-1", connect_timeout=1, read_timeout=1, max_attempts=1)
    return botoclient._making.get(), client.get


class Session:
    """Makes clients that are but words."""

    def client(self, service: str, **options: Any) -> str:
        return f"a client of {service}"


HOLDERS: dict[str, tuple[Callable[[], tuple[Any, Callable[[], Any]]], Any]] = {
    "a key cache": (lambda: of_a_cache(lambda cache: cache._locks.get().guard), True),
    "a key cache's loading": (lambda: of_a_cache(lambda cache: cache.loading(META.key_id)), True),
    "keys that could not be loaded": (lambda: of_unavailable_keys(Unavailable(10)), True),
    "keys in memory": (lambda: of_memory(MemoryMetastore()), None),
    "refused records": (lambda: of_refusals(Refusals()), None),
    "calls with a deadline": (lambda: of_deadlines(Deadlines("the KMS")), "an answer"),
    "the regions' health": (lambda: of_health(Modules().kms()), bytearray(KEY)),
    "the making of clients": (of_boto, "a client of kms"),
    "the start of the engine": (lambda: (engine._start_lock.get(), engine.reset), None),
    "documents that are read": (read_document, {"a": 1}),
}


@either_fork
@pytest.mark.django_db
@pytest.mark.parametrize("name", HOLDERS)
def test_a_child_waits_for_no_lock_that_a_thread_of_its_parent_holds(fork: Fork, name: str) -> None:
    make, expected = HOLDERS[name]
    lock, use = make()
    with held_by_another_thread(lock):
        assert in_child(fork, use) == expected


@either_fork
def test_master_keys_that_can_not_be_made_in_a_child_are_an_error_of_the_kms(fork: Fork) -> None:
    parent, modules = os.getpid(), Modules()

    def make(region: str, name: str) -> Any:
        if os.getpid() != parent:
            raise FileNotFoundError("the module's socket")
        return Module(name, modules)

    kms = MultiRegionKMS(NAMES, "zurich", make)
    wrapped = kms.encrypt_key(KEY)

    def unwrap() -> str:
        try:
            kms.decrypt_key(wrapped)
        except KMSError as exc:
            return str(exc)
        return ""

    assert in_child(fork, unwrap) == "no region can be asked in this process: FileNotFoundError: the module's socket"
    assert kms.decrypt_key(wrapped) == KEY


def draw(ciphers: list[Cipher], kms: StaticKMS) -> list[bytes | float]:
    """Return every nonce and every data row key that is drawn for one value, one file and one system key."""
    drawn: list[bytes | float] = [any_fraction(), kms.encrypt_key(KEY)[-NONCE_LENGTH:]]
    for cipher in ciphers:
        sealed_key, sealed = cipher.seal_row(b"same")
        files_key, start, _ = cipher.start_stream(b"same")
        drawn += [cipher.open(sealed_key), cipher.open(files_key)]
        drawn += [part[-NONCE_LENGTH:] for part in (sealed_key, sealed, files_key, start, cipher.seal(b"same"))]
    return drawn


@either_fork
def test_no_two_processes_draw_one_key_or_nonce(fork: Fork) -> None:
    ciphers, kms = [Cipher(bytes(KEY_LENGTH)), make_cipher(bytes(KEY_LENGTH))], StaticKMS(bytes(KEY_LENGTH))
    drawn = draw(ciphers, kms)
    for _ in range(3):
        drawn += in_child(fork, lambda: draw(ciphers, kms))
    drawn += draw(ciphers, kms)
    assert len(drawn) == 5 * (2 + 7 * 2) == len(set(drawn))
