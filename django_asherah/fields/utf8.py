"""Text as the bytes that are encrypted."""

from __future__ import annotations

from django_asherah.exceptions import DecryptionError, EncryptionError


def decode_text(payload: bytes) -> str:
    """Return a payload as text.

    Raises:
        DecryptionError: it is not UTF-8.
    """
    try:
        return payload.decode()
    except UnicodeDecodeError:  # It holds the whole payload, so it may not stay in the chain.
        pass
    raise DecryptionError("the record opens, but holds no UTF-8 text: another kind of field wrote it")


def encode_text(text: str) -> bytes:
    """Return text as the bytes to encrypt.

    Raises:
        EncryptionError: it holds lone surrogates.
    """
    try:
        return text.encode()
    except UnicodeEncodeError:  # It holds the whole text, so it may not stay in the chain.
        pass
    raise EncryptionError("the text holds lone surrogates, which are not Unicode text")
