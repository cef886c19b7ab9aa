"""The native code: the same bytes as in Python, and nothing that hostile input, threads or forks do to it."""

from __future__ import annotations

import copy
import os
import pickle
import resource
import ssl
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from django_asherah.envelope.aead import Cipher
from tests.forking import Fork, either_fork, in_child

native = pytest.importorskip("django_asherah_native", reason="no native code: make native")

KEY = bytes(range(32))
LARGE = 16 * 1024
"""From here on, native code works without the interpreter lock."""


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 100, LARGE - 1, LARGE, LARGE + 1, 1_000_003, 64 * 1024 * 1024])
def test_it_reads_what_python_writes_and_writes_what_python_reads(length: int) -> None:
    plain = os.urandom(length)
    python, rows = Cipher(KEY), native.RowCipher(KEY)
    sealed_key, sealed = rows.seal_row(plain)
    assert (len(sealed_key), len(sealed)) == (60, length + 28)
    assert python.open_row(sealed_key, sealed) == plain
    assert rows.open_row(*python.seal_row(plain)) == plain


@pytest.mark.parametrize("length", [0, 5, LARGE])
def test_no_bit_may_be_flipped(length: int) -> None:
    rows = native.RowCipher(KEY)
    good = rows.seal_row(bytes(length))
    places = {0, 1, length // 2, length - 1} if length == LARGE else range(length)
    for part, at in [(0, at) for at in range(60)] + [(1, at) for at in {*places, *range(length, length + 28)}]:
        for bit in range(8):
            row = [bytearray(each) for each in good]
            row[part][at] ^= 1 << bit
            with pytest.raises(ValueError, match=r"^sealed under another key, or tampered with$"):
                rows.open_row(*map(bytes, row))
    assert rows.open_row(*good) == bytes(length)


@pytest.mark.parametrize("part", [0, 1])
def test_nothing_opens_that_is_cut_off_or_goes_on(part: int) -> None:
    rows = native.RowCipher(KEY)
    good = rows.seal_row(b"five!")
    for length in range(len(good[part])):
        cut, behind = list(good), list(good)
        cut[part], behind[part] = good[part][:length], good[part][length + 1 :]
        for row in (cut, behind):
            with pytest.raises(ValueError, match="tampered"):
                rows.open_row(*row)
    longer = list(good)
    longer[part] += b"\0"
    with pytest.raises(ValueError, match="tampered"):
        rows.open_row(*longer)


def test_another_key_opens_nothing() -> None:
    with pytest.raises(ValueError, match="tampered"):
        native.RowCipher(bytes(32)).open_row(*native.RowCipher(KEY).seal_row(b"x"))


@pytest.mark.parametrize(
    "wrong",
    ["text", None, 1, bytearray(60), memoryview(bytes(60))],
    ids=["str", "None", "int", "bytearray", "memoryview"],
)
def test_only_bytes_are_taken(wrong: Any) -> None:
    rows = native.RowCipher(KEY)
    sealed_key, sealed = rows.seal_row(b"x")
    for work in (
        lambda: rows.seal_row(wrong),
        lambda: rows.open_row(wrong, sealed),
        lambda: rows.open_row(sealed_key, wrong),
    ):
        with pytest.raises(TypeError):
            work()
    assert rows.open_row(sealed_key, sealed) == b"x"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_row_has_two_parts(count: int) -> None:
    with pytest.raises(TypeError, match=f"takes 2 arguments, not {count}"):
        native.RowCipher(KEY).open_row(*[bytes(60)] * count)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_key_has_32_bytes(length: int) -> None:
    with pytest.raises(ValueError, match=f"the key has {length} bytes, not 32"):
        native.RowCipher(bytes(length))


def test_a_key_is_bytes_and_nothing_else() -> None:
    for wrong in ("k" * 32, None, 32):
        with pytest.raises(TypeError):
            native.RowCipher(wrong)
    for right in (KEY, bytearray(KEY), memoryview(KEY)):
        assert Cipher(KEY).open_row(*native.RowCipher(right).seal_row(b"x")) == b"x"


def test_it_can_not_be_copied_subclassed_or_changed() -> None:
    rows = native.RowCipher(KEY)
    for work in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            work(rows)
    with pytest.raises(TypeError):
        type("Sub", (native.RowCipher,), {})
    with pytest.raises(TypeError):
        native.RowCipher.seal_row = None
    with pytest.raises(AttributeError):
        rows.anything = None


def test_threads_get_in_nobodys_way() -> None:
    """Small rows share one context, and large ones are sealed at the same time."""
    ciphers = [native.RowCipher(bytes([number]) * 32) for number in range(4)]

    def work(number: int) -> int:
        cipher, python = ciphers[number % 4], Cipher(bytes([number % 4]) * 32)
        for turn in range(200):
            plain = bytes([number, turn]) * (LARGE if turn % 10 == 0 else 20)
            row = cipher.seal_row(plain)
            assert cipher.open_row(*row) == python.open_row(*row) == plain
            with pytest.raises(ValueError, match="tampered"):
                ciphers[(number + 1) % 4].open_row(*row)
        return number

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(work, range(32))) == list(range(32))


@either_fork
def test_a_forked_process_draws_keys_and_nonces_of_its_own(fork: Fork) -> None:
    rows = native.RowCipher(KEY)
    rows.seal_row(b"before")
    child = in_child(fork, lambda: b"".join(rows.seal_row(b"same")))
    ours = b"".join(rows.seal_row(b"same"))
    assert rows.open_row(child[:60], child[60:]) == rows.open_row(ours[:60], ours[60:]) == b"same"
    assert child[48:60] != ours[48:60]
    assert child[-12:] != ours[-12:]
    assert child[:60] != ours[:60]


def test_a_failure_leaves_nothing_behind_for_the_ssl_module() -> None:
    rows = native.RowCipher(KEY)
    with pytest.raises(ValueError, match="tampered"):
        rows.open_row(bytes(60), bytes(60))
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(one, other, server_hostname="example.org").do_handshake()


def test_no_memory_is_lost_whatever_comes_of_it() -> None:
    def work(times: int) -> None:
        for _ in range(times):
            rows = native.RowCipher(KEY)
            rows.open_row(*rows.seal_row(bytes(100)))
            rows.open_row(*rows.seal_row(bytes(LARGE)))
            for wrong in ((bytes(60), bytes(60)), (b"", b""), ("", b""), (b"",)):
                with pytest.raises((ValueError, TypeError)):
                    rows.open_row(*wrong)
            with pytest.raises(ValueError, match="not 32"):
                native.RowCipher(b"")

    tracemalloc.start()
    work(500)
    python, process = tracemalloc.get_traced_memory()[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work(5000)
    lost = tracemalloc.get_traced_memory()[0] - python
    tracemalloc.stop()
    assert lost < 100_000
    # OpenSSL's contexts, which tracemalloc does not see: one of them for each time would be megabytes.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - process < 2500
