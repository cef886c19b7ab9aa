"""An opened key, and until when it may be used."""

from __future__ import annotations

from typing import Final, NoReturn

from django_asherah.envelope.aead import Cipher
from django_asherah.envelope.clocks import Moment
from django_asherah.envelope.compact import compact_prefix
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta

BEFORE_EVERY_USE: Final = 0.0
"""For :meth:`CryptoKey.trust_until`: a moment that is always past, so that the record is read before every use."""


class CryptoKey:
    """An opened system key or intermediate key, held as a cipher object and never as bytes.

    It alone knows until when it may be used, and there are two rules:

    - A check is due *at* its moment: before it (``<``) the key is used without a look at its record. It is a moment of
      the timer, so that a wall clock that was set back puts off no check.
    - A key expires *after* its last moment: exactly then (``<=``) it still takes new writes, as in Asherah's SDKs.
      It is a moment of the wall clock, in Unix seconds.

    Attributes:
        meta: the key's id and creation time.
        record: its envelope key record as last read; see :meth:`update_record`.
        cipher: seals and opens under this key.
        compact_prefix: what compact records under this key begin with.
        recently_used: the cache's mark.
        grace_until: the end of the grace (Unix seconds) in which it takes new writes although it has expired; or 0.
        is_for_reading: whether its row holds something else by now, so that it only opens what it has sealed.
    """

    __slots__ = (
        "_check_at",
        "_valid_until",
        "_writes_until",
        "cipher",
        "compact_prefix",
        "grace_until",
        "is_for_reading",
        "meta",
        "recently_used",
        "record",
    )

    def __init__(self, meta: KeyMeta, record: EnvelopeKeyRecord, cipher: Cipher) -> None:
        self.meta = meta
        self.record = record
        self.cipher = cipher
        self.compact_prefix = compact_prefix(meta)
        self.recently_used = False
        self.grace_until = 0.0
        self.is_for_reading = False
        # Trusted with nothing until somebody has looked.
        self._check_at = BEFORE_EVERY_USE
        self._valid_until = 0.0
        self._writes_until = 0.0

    @property
    def check_at(self) -> float:
        """From when the record must be read again before use."""
        return self._check_at

    @property
    def is_committed(self) -> bool:
        """Whether the record was certain to last when it was read. Until it is, it is read before every use."""
        return self._check_at != BEFORE_EVERY_USE

    def is_trusted(self, now: float) -> bool:
        """Tell whether the key may be used at a moment of the timer without a look at its record."""
        return now < self._check_at

    def takes_writes(self, now: float) -> bool:
        """Tell whether new writes may use the key at a moment of the timer without a look at its record or parent."""
        return now < self._writes_until

    def is_valid(self, now: float) -> bool:
        """Tell whether the key takes new writes at a moment of the wall clock, as far as was last found.

        It does if it is neither revoked nor expired.
        """
        return now <= self._valid_until

    def update_record(self, record: EnvelopeKeyRecord) -> bool:
        """Take the record as it was just read, if it still holds this very key; tell whether it does.

        A rolled back transaction takes a key's row away, and another key may then stand under the same id and time.
        """
        if record.key != self.record.key:
            return False
        self.record = record
        self.is_for_reading = False
        if record.revoked:
            self._valid_until = self._writes_until = self.grace_until = 0.0
        return True

    def trust_until(self, check_at: float) -> None:
        """Trust the record, which was just read, until ``check_at``; new writes wait for :meth:`allow_writes`."""
        self._check_at = check_at
        self._writes_until = 0.0

    def allow_writes(self, valid_until: float, check_at: float, now: Moment) -> None:
        """Let new writes use the key up to ``valid_until`` (Unix seconds), with no further look before ``check_at``."""
        self._valid_until = valid_until
        self._writes_until = min(now.timer + (valid_until - now.wall), check_at)

    def extend_trust(self, check_at: float, now: Moment) -> None:
        """Go on until ``check_at``, a moment of the timer, as the key was last found: its record can't be read now."""
        self._check_at = check_at
        self._writes_until = min(now.timer + (max(self._valid_until, self.grace_until) - now.wall), check_at)

    @property
    def is_retired(self) -> bool:
        """Whether it takes no new writes whatever the time, as far as was last found: it or its parent is revoked."""
        return not self._valid_until

    def stop_writes(self, check_at: float) -> None:
        """Open what the key has sealed until ``check_at``, and seal nothing new before its row holds it again."""
        self.is_for_reading = True
        self._check_at = check_at
        self._valid_until = self._writes_until = self.grace_until = 0.0

    def require_check(self, now: float) -> None:
        """Let the record be read again before the next use from this moment of the timer on."""
        self._check_at = min(self._check_at, now)
        self._writes_until = min(self._writes_until, now)

    def __repr__(self) -> str:
        return f"<CryptoKey {self.meta}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an opened key can't be pickled or copied")
