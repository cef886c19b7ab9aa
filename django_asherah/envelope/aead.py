"""AES-256-GCM in Asherah's layout: ``ciphertext ‖ 16-byte tag ‖ 12-byte nonce``, no associated data.

Source: ``go/appencryption/pkg/crypto/aead`` of godaddy/asherah. The layout is the wire format and may never change.
"""

from __future__ import annotations

import os
from struct import Struct
from typing import Final, NoReturn

from django_asherah.envelope.interfaces import Random
from django_asherah.exceptions import DecryptionError

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError as exc:
    if "subinterpreters" not in str(exc):
        raise
    raise ImportError(
        "the package cryptography works in one interpreter of a process, and this is another: give each application a "
        "process of its own, and in it the main interpreter (mod_wsgi: WSGIDaemonProcess and WSGIApplicationGroup "
        "%{GLOBAL}; uWSGI: single-interpreter)"
    ) from exc

KEY_LENGTH: Final = 32
NONCE_LENGTH: Final = 12
TAG_LENGTH: Final = 16

_NONCE_AT: Final = -NONCE_LENGTH
"""Where the nonce begins, counted from the end."""

_DRAW_LENGTH = KEY_LENGTH + 2 * NONCE_LENGTH
_split_draw = Struct(f"{KEY_LENGTH}s{NONCE_LENGTH}s{NONCE_LENGTH}s").unpack

FAILED = "could not be opened: it was sealed under another key, or tampered with"


class StreamCipher:
    """AES-256-GCM under a data row key of its own, for the chunks of one file. Thread-safe.

    The nonce is the chunk's number in 11 bytes and one byte that tells the last one (the STREAM construction of Hoang,
    Reyhanitabar, Rogaway and Vizár, 2015, as age has it): a chunk opens only under its own number in its own file. The
    nonce never repeats, because a key seals each number once.
    """

    __slots__ = ("_aead", "_context")

    def __init__(self, key: bytes | bytearray, context: bytes) -> None:
        """Take a 32-byte key, and what each chunk is bound to besides its number."""
        self._aead = AESGCM(key)
        self._context = context

    def seal(self, number: int, chunk: bytes, *, last: bool) -> bytes:
        """Return ``chunk`` sealed under its number, counted from 0: 16 bytes longer."""
        return self._aead.encrypt(_chunk_nonce(number, last), chunk, self._context)

    def open(self, number: int, sealed: bytes, *, last: bool) -> bytes:
        """Return the chunk that was sealed under this number.

        Raises:
            DecryptionError: it was sealed under another number or another key, or tampered with.
        """
        try:
            return self._aead.decrypt(_chunk_nonce(number, last), sealed, self._context)
        except (InvalidTag, ValueError):
            raise DecryptionError(FAILED) from None

    def __repr__(self) -> str:
        return "<StreamCipher: key not shown>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a cipher holds a key and can't be pickled or copied")


class Cipher:
    """AES-256-GCM under one key. The key itself can't be read back. Thread-safe."""

    __slots__ = ("_decrypt", "_decrypt_into", "_encrypt", "_random")

    def __init__(self, key: bytes | bytearray, random: Random = os.urandom) -> None:
        """Take a 32-byte key; the caller may wipe its buffer afterwards."""
        aead = AESGCM(key)
        self._encrypt, self._decrypt, self._decrypt_into = aead.encrypt, aead.decrypt, aead.decrypt_into
        self._random = random

    def seal(self, plaintext: bytes | bytearray) -> bytes:
        """Return ``plaintext`` sealed under a fresh random nonce: 28 bytes longer."""
        nonce = self._random(NONCE_LENGTH)
        return self._encrypt(nonce, plaintext, None) + nonce

    def open(self, blob: bytes) -> bytes:
        """Return what was sealed.

        Raises:
            DecryptionError: wrong key or tampering; which of them can't be told.
        """
        try:
            return self._decrypt(blob[_NONCE_AT:], blob[:_NONCE_AT], None)
        except (InvalidTag, ValueError):
            raise DecryptionError(FAILED) from None

    def open_key(self, blob: bytes) -> bytearray:
        """Return a sealed 32-byte key in a buffer that the caller wipes.

        Raises:
            DecryptionError: wrong key, tampering, or not a 32-byte key.
        """
        key = bytearray(KEY_LENGTH)
        try:
            self._decrypt_into(blob[_NONCE_AT:], blob[:_NONCE_AT], None, key)
        except (InvalidTag, ValueError):
            raise DecryptionError(FAILED) from None
        return key

    def seal_row(self, plaintext: bytes) -> tuple[bytes, bytes]:
        """Seal ``plaintext`` under a fresh data row key, and that key under this one.

        Returns:
            The sealed data row key (60 bytes) and the sealed plaintext.
        """
        row_key, nonce, key_nonce = _split_draw(self._random(_DRAW_LENGTH))
        sealed = AESGCM(row_key).encrypt(nonce, plaintext, None) + nonce
        return self._encrypt(key_nonce, row_key, None) + key_nonce, sealed

    def open_row(self, sealed_key: bytes, sealed: bytes) -> bytes:
        """Open what :meth:`seal_row` sealed.

        Raises:
            DecryptionError: wrong key or tampering; which of them can't be told.
        """
        try:
            # The row key gets no name: whoever shows the frames of an error would show it.
            row_cipher = AESGCM(self._decrypt(sealed_key[_NONCE_AT:], sealed_key[:_NONCE_AT], None))
            return row_cipher.decrypt(sealed[_NONCE_AT:], sealed[:_NONCE_AT], None)
        except (InvalidTag, ValueError):
            raise DecryptionError(FAILED) from None

    def start_stream(self, context: bytes) -> tuple[bytes, bytes, StreamCipher]:
        """Make a fresh data row key for the chunks of one file.

        Returns:
            The sealed data row key (60 bytes), ``context`` sealed by it, and the cipher of the chunks.
        """
        row_key = self._random(KEY_LENGTH)
        return self.seal(row_key), Cipher(row_key, self._random).seal(context), StreamCipher(row_key, context)

    def open_stream(self, sealed_key: bytes, context: bytes) -> StreamCipher:
        """Return the cipher of the chunks again.

        Raises:
            DecryptionError: wrong key or tampering.
        """
        row_key = self.open_key(sealed_key)
        stream = StreamCipher(row_key, context)
        wipe(row_key)
        return stream

    def __repr__(self) -> str:
        return "<Cipher: key not shown>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a cipher holds a key and can't be pickled or copied")


def _chunk_nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(NONCE_LENGTH - 1) + bytes([last])


def wipe(buffer: bytearray) -> None:
    """Overwrite a raw key with zeros, in place."""
    buffer[:] = bytes(len(buffer))
