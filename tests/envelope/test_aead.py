"""AES-256-GCM in Asherah's layout."""

from __future__ import annotations

import copy
import pickle
from importlib.util import find_spec

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from django_asherah.envelope import native
from django_asherah.envelope.aead import Cipher, StreamCipher, wipe
from django_asherah.envelope.native import NativeCipher, make_cipher
from django_asherah.exceptions import DecryptionError

KEY = bytes(range(32))

CIPHERS = [
    Cipher,
    pytest.param(NativeCipher, marks=pytest.mark.skipif(not native.IS_INSTALLED, reason="no native code: make native")),
]
every_cipher = pytest.mark.parametrize("kind", CIPHERS)


def test_the_nonce_stands_behind_the_tag() -> None:
    blob = Cipher(KEY).seal(b"plain")
    assert len(blob) == 5 + 28
    assert AESGCM(KEY).decrypt(blob[-12:], blob[:-12], None) == b"plain"


@every_cipher
@pytest.mark.parametrize("plaintext", [b"", b"x", b"x" * 1_000_000])
def test_what_is_sealed_opens(kind: type[Cipher], plaintext: bytes) -> None:
    cipher = kind(KEY)
    assert cipher.open(cipher.seal(plaintext)) == plaintext
    assert cipher.open_row(*cipher.seal_row(plaintext)) == plaintext


def test_a_row_draws_its_key_and_both_nonces_at_once() -> None:
    drawn: list[int] = []

    def random(length: int) -> bytes:
        drawn.append(length)
        return bytes(range(length))

    sealed_key, sealed = Cipher(KEY, random).seal_row(b"plain")
    assert drawn == [56]
    draw = bytes(range(56))
    assert sealed_key == AESGCM(KEY).encrypt(draw[44:], draw[:32], None) + draw[44:]
    assert sealed == AESGCM(draw[:32]).encrypt(draw[32:44], b"plain", None) + draw[32:44]


@every_cipher
def test_no_two_records_share_a_key_or_a_nonce(kind: type[Cipher]) -> None:
    cipher = kind(KEY)
    rows = [cipher.seal_row(b"same") for _ in range(1000)]
    assert len(set(rows)) == 1000
    assert len({sealed_key[-12:] for sealed_key, _ in rows} | {sealed[-12:] for _, sealed in rows}) == 2000


@every_cipher
@pytest.mark.parametrize("blob", [b"", b"x", b"x" * 11, b"x" * 12, b"x" * 27, b"x" * 28, b"x" * 60])
def test_garbage_does_not_open(kind: type[Cipher], blob: bytes) -> None:
    cipher = kind(KEY)
    for work in (cipher.open, cipher.open_key, lambda blob: cipher.open_row(blob, blob)):
        with pytest.raises(DecryptionError, match="sealed under another key, or tampered with"):
            work(blob)


def test_wrong_key_and_tampering_say_the_same() -> None:
    blob = Cipher(KEY).seal(b"x")
    with pytest.raises(DecryptionError) as wrong_key:
        Cipher(b"k" * 32).open(blob)
    with pytest.raises(DecryptionError) as tampered:
        Cipher(KEY).open(bytes([blob[0] ^ 1]) + blob[1:])
    assert str(wrong_key.value) == str(tampered.value)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_is_no_key(length: int) -> None:
    cipher = Cipher(KEY)
    with pytest.raises(DecryptionError):
        cipher.open_key(cipher.seal(bytes(length)))


@every_cipher
def test_a_cipher_shows_and_gives_away_nothing(kind: type[Cipher]) -> None:
    cipher = kind(KEY)
    assert repr(cipher) == "<Cipher: key not shown>"
    for work in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="can't be pickled or copied"):
            work(cipher)


class TestStreamCipher:
    """The chunks of one file."""

    def test_the_nonce_is_the_chunks_number_and_whether_it_is_the_last(self) -> None:
        stream = StreamCipher(KEY, b"context")
        for number, last, nonce in (
            (0, False, bytes(12)),
            (1, True, bytes(10) + b"\x01\x01"),
            (258, False, bytes(9) + b"\x01\x02\0"),
        ):
            sealed = stream.seal(number, b"chunk", last=last)
            assert sealed == AESGCM(KEY).encrypt(nonce, b"chunk", b"context")
            assert stream.open(number, sealed, last=last) == b"chunk"

    def test_a_chunk_opens_only_as_what_it_was_sealed(self) -> None:
        sealed = StreamCipher(KEY, b"context").seal(1, b"chunk", last=False)
        for key, context, number, last in (
            (KEY, b"context", 0, False),
            (KEY, b"context", 1, True),
            (KEY, b"other", 1, False),
            (bytes(32), b"context", 1, False),
        ):
            with pytest.raises(DecryptionError, match="sealed under another key, or tampered with"):
                StreamCipher(key, context).open(number, sealed, last=last)

    @pytest.mark.parametrize("length", [0, 1, 15, 16, 21])
    def test_garbage_does_not_open(self, length: int) -> None:
        with pytest.raises(DecryptionError):
            StreamCipher(KEY, b"context").open(0, bytes(length), last=True)

    def test_it_shows_and_gives_away_nothing(self) -> None:
        stream = StreamCipher(KEY, b"context")
        assert repr(stream) == "<StreamCipher: key not shown>"
        for work in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="can't be pickled or copied"):
                work(stream)

    def test_a_streams_key_is_sealed_by_the_cipher_that_started_it(self) -> None:
        sealed_key, sealed, stream = Cipher(KEY).start_stream(b"context")
        row_key = bytes(Cipher(KEY).open_key(sealed_key))
        assert Cipher(row_key).open(sealed) == b"context"
        chunk = stream.seal(0, b"chunk", last=True)
        assert StreamCipher(row_key, b"context").open(0, chunk, last=True) == b"chunk"
        assert Cipher(KEY).open_stream(sealed_key, b"context").open(0, chunk, last=True) == b"chunk"


def test_a_streams_raw_key_is_wiped_when_it_is_opened() -> None:
    opened: list[bytearray] = []

    class Keeping(Cipher):
        def open_key(self, blob: bytes) -> bytearray:
            opened.append(super().open_key(blob))
            return opened[-1]

    cipher = Keeping(KEY)
    cipher.open_stream(cipher.seal(bytes(range(1, 33))), b"context")
    assert opened == [bytes(32)]


def test_wipe_leaves_zeros() -> None:
    buffer = bytearray(KEY)
    wipe(buffer)
    assert buffer == bytes(32)


@every_cipher
def test_the_callers_buffer_may_be_wiped(kind: type[Cipher]) -> None:
    buffer = bytearray(KEY)
    cipher = kind(buffer)
    blob, row = cipher.seal(b"x"), cipher.seal_row(b"y")
    wipe(buffer)
    assert Cipher(KEY).open(blob) == cipher.open(blob) == b"x"
    assert Cipher(KEY).open_row(*row) == cipher.open_row(*row) == b"y"


def test_native_code_is_taken_where_it_is_unless_randomness_is_given() -> None:
    is_here = find_spec("django_asherah_native") is not None
    assert native.IS_INSTALLED is is_here
    assert type(make_cipher(KEY)) is (NativeCipher if is_here else Cipher)
    assert type(make_cipher(KEY, bytes)) is Cipher
