"""What a forked child makes anew."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from django_asherah.envelope.forksafe import ForkSafe, ForkSafeLock
from django_asherah.metastores.memory import MemoryMetastore


def is_free(lock: ForkSafeLock) -> bool:
    """Tell whether another thread could take it now."""
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(lock._lock.acquire, False).result(30)
    if taken:
        lock._lock.release()
    return taken


@contextmanager
def held_by_another_thread(lock: AbstractContextManager[Any]) -> Iterator[None]:
    """Have another thread hold a lock during the block."""
    locked, release = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            locked.set()
            release.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    assert locked.wait(30)
    try:
        yield
    finally:
        release.set()
        holder.join()


def test_one_thread_at_a_time_holds_the_lock() -> None:
    lock = ForkSafeLock()
    with lock:
        assert not is_free(lock)
    assert is_free(lock)


def test_a_block_that_fails_gives_the_lock_back() -> None:
    lock = ForkSafeLock()
    with pytest.raises(RuntimeError, match="fails"), lock:
        raise RuntimeError("the block fails")
    assert is_free(lock)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_the_lock_is_free_in_a_forked_child_and_held_in_its_parent() -> None:
    lock = ForkSafeLock()
    with held_by_another_thread(lock):
        child = os.fork()
        if not child:
            os._exit(7 if lock._lock.acquire(blocking=False) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert not is_free(lock)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_keys_in_memory_are_read_in_a_child_that_was_forked_while_a_thread_read_them() -> None:
    metastore = MemoryMetastore()
    with held_by_another_thread(metastore._lock):
        child = os.fork()
        if not child:
            signal.alarm(10)
            os._exit(7 if metastore.load_latest("_SK_s_p") is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


class Failing(ForkSafe):
    """Can't make its connection anew in a child."""

    def __init__(self) -> None:
        self.parent = os.getpid()
        super().__init__()

    def _make_anew(self) -> None:
        if os.getpid() != self.parent:
            raise ConnectionError("there is nobody to connect to")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_one_that_fails_in_a_forked_child_keeps_no_other_lock_held() -> None:
    locks, failing = [ForkSafeLock() for _ in range(20)], [Failing() for _ in range(5)]
    for lock in locks:
        lock._lock.acquire()
    child = os.fork()
    if not child:
        os._exit(sum(lock._lock.acquire(blocking=False) for lock in locks))
    for lock in locks:
        lock._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 20
    assert len(failing) == 5
