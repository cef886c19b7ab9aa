"""The floor of envelope encryption in Asherah's JSON, with no Django, no cache of keys, no checks and no policy.

Two AES-256-GCM calls (one under a cached cipher object, one under a fresh key), one random draw, and msgspec for the
same record as ours. It is what a data row record costs in Python; a field can only come near it.
"""

import os
import time
from struct import Struct

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


class Meta(msgspec.Struct, rename="pascal", gc=False):
    """Names the intermediate key."""

    key_id: str
    created: int


class Key(msgspec.Struct, rename="pascal", gc=False):
    """The sealed data row key."""

    created: int
    key: bytes
    parent_key_meta: Meta


class Record(msgspec.Struct, rename="pascal", gc=False):
    """The data row record."""

    key: Key
    data: bytes


def codec():
    """Return how to seal and open a str as the JSON of a data row record."""
    intermediate = AESGCM(os.urandom(32))
    meta = Meta("_IK_default_bench_bench", int(time.time()))
    write, read = msgspec.json.Encoder().encode, msgspec.json.Decoder(Record).decode
    urandom, now, split = os.urandom, time.time, Struct("32s12s12s").unpack

    def encrypt(text):
        key, nonce, key_nonce = split(urandom(56))
        data = AESGCM(key).encrypt(nonce, text.encode(), None) + nonce
        return write(
            Record(Key(int(now()), intermediate.encrypt(key_nonce, key, None) + key_nonce, meta), data)
        ).decode()

    def decrypt(text):
        record = read(text)
        sealed, data = record.key.key, record.data
        key = intermediate.decrypt(sealed[-12:], sealed[:-12], None)
        return AESGCM(key).decrypt(data[-12:], data[:-12], None).decode()

    return encrypt, decrypt
