"""The floor of all floors: one AES-256-GCM call under one cached cipher object, and no format at all."""

import os

from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def codec():
    """Return how to seal and open a str as ciphertext, tag and nonce."""
    cipher = AESGCM(os.urandom(32))
    urandom, seal, unseal = os.urandom, cipher.encrypt, cipher.decrypt

    def encrypt(text):
        nonce = urandom(12)
        return seal(nonce, text.encode(), None) + nonce

    def decrypt(blob):
        return unseal(blob[-12:], blob[:-12], None).decode()

    return encrypt, decrypt
