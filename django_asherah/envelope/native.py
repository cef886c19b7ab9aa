"""The same ciphers with native code for the rows, where ``django-asherah[native]`` is installed.

What it seals and what it opens is the same, byte for byte; a data row key never becomes a Python object there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from django_asherah.envelope.aead import FAILED, Cipher
from django_asherah.envelope.interfaces import Random
from django_asherah.exceptions import DecryptionError

try:
    from django_asherah_native import RowCipher
except ImportError:
    RowCipher: Any = None  # type: ignore[no-redef]

IS_INSTALLED = RowCipher is not None
"""Whether the native code is here."""


class NativeCipher(Cipher):
    """A cipher whose rows are sealed and opened by native code, with randomness from the operating system."""

    __slots__ = ("_open_row", "_seal_row")

    def __init__(self, key: bytes | bytearray) -> None:
        """Take a 32-byte key; the caller may wipe its buffer afterwards."""
        super().__init__(key)
        rows = RowCipher(key)
        self._seal_row: Callable[[bytes], tuple[bytes, bytes]] = rows.seal_row
        self._open_row: Callable[[bytes, bytes], bytes] = rows.open_row

    def seal_row(self, plaintext: bytes) -> tuple[bytes, bytes]:
        """Do what :meth:`Cipher.seal_row` does."""
        return self._seal_row(plaintext)

    def open_row(self, sealed_key: bytes, sealed: bytes) -> bytes:
        """Do what :meth:`Cipher.open_row` does.

        Raises:
            DecryptionError: wrong key or tampering; which of them can't be told.
        """
        try:
            return self._open_row(sealed_key, sealed)
        except ValueError:
            raise DecryptionError(FAILED) from None


def make_cipher(key: bytes | bytearray, random: Random = os.urandom) -> Cipher:
    """Return the fastest cipher for rows that is here; native code draws from the operating system only."""
    return NativeCipher(key) if IS_INSTALLED and random is os.urandom else Cipher(key, random)
