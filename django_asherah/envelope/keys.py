"""An opened key."""

from __future__ import annotations

from typing import NoReturn

from django_asherah.envelope.aead import Cipher
from django_asherah.envelope.compact import compact_prefix
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta


class CryptoKey:
    """An opened system key or intermediate key, held as a cipher object and never as bytes.

    Attributes:
        meta: the key's id and creation time.
        record: its envelope key record as last read.
        cipher: seals and opens under this key.
        compact_prefix: what compact records under this key begin with.
        check_at: Unix seconds from when the record must be read again before use; 0 means before every use,
            which is so while the record's transaction is not committed.
        valid_until: Unix seconds until when the key takes new writes, as last found; 0 if never looked at.
        usable_until: Unix seconds until when new writes may use the key with no further look.
        recently_used: the cache's mark.
    """

    __slots__ = (
        "check_at",
        "cipher",
        "compact_prefix",
        "meta",
        "recently_used",
        "record",
        "usable_until",
        "valid_until",
    )

    def __init__(self, meta: KeyMeta, record: EnvelopeKeyRecord, cipher: Cipher) -> None:
        self.meta = meta
        self.record = record
        self.cipher = cipher
        self.compact_prefix = compact_prefix(meta)
        self.check_at = 0.0
        self.valid_until = 0.0
        self.usable_until = 0.0
        self.recently_used = False

    def __repr__(self) -> str:
        return f"<CryptoKey {self.meta}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an opened key can't be pickled or copied")
