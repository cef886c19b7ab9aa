"""The static KMS: one master key that stands in the settings. For development and tests only.

Source: ``go/appencryption/pkg/kms/static.go`` of godaddy/asherah: the system key sealed directly with the master key.
"""

from __future__ import annotations

import os

from django_asherah.envelope.aead import KEY_LENGTH, Cipher
from django_asherah.envelope.interfaces import Random
from django_asherah.exceptions import DecryptionError, KMSError


class StaticKMS:
    """Wraps system keys under a 32-byte key that the process holds."""

    def __init__(self, key: bytes, random: Random = os.urandom) -> None:
        """Take the 32-byte master key.

        Raises:
            ValueError: it has another length.
        """
        if len(key) != KEY_LENGTH:
            raise ValueError(f"a static master key has {KEY_LENGTH} bytes, not {len(key)}")
        self._cipher = Cipher(key, random)

    def encrypt_key(self, key: bytes | bytearray) -> bytes:
        """Return the system key sealed with the master key: 60 bytes."""
        return self._cipher.seal(key)

    def decrypt_key(self, wrapped: bytes) -> bytearray:
        """Return the 32-byte system key, in a buffer that the caller wipes.

        Raises:
            KMSError: it was sealed under another master key, or tampered with.
        """
        try:
            return self._cipher.open_key(wrapped)
        except DecryptionError as exc:
            advice = "a database that is kept (--reuse-db, --keepdb) needs the same key in every run"
            raise KMSError(
                f"the static master key does not open it: {exc}. In tests, {advice}", {"static": exc}
            ) from exc

    def __repr__(self) -> str:
        return "<StaticKMS: key not shown>"
