"""Key rings: make, renew and rotate the keys of one level of the hierarchy.

Behaviour follows ``go/appencryption/envelope.go`` of godaddy/asherah. Where this differs: a stale key is compared by
``created`` when it is read again, a store error is never taken for a duplicate, a key that must follow a revoked one of
the same minute gets a ``created`` of its own, and neither a broken newest row nor a key from the future takes writes.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from django_asherah.envelope.aead import KEY_LENGTH, wipe
from django_asherah.envelope.clocks import Moment, require_representable
from django_asherah.envelope.interfaces import CacheMissed, KeyCreated, RenewalFailed
from django_asherah.envelope.keys import CryptoKey
from django_asherah.envelope.loading import Collaborators, KeyLoader
from django_asherah.envelope.native import make_cipher
from django_asherah.envelope.newest import NewestRecords
from django_asherah.envelope.policy import MAX_SKEW
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta
from django_asherah.exceptions import AsherahError, EncryptionError, KMSError, MetastoreError

logger = logging.getLogger("django_asherah")

CREATE_ATTEMPTS = 10
"""How often a key is made that another retires at once, before that is an error."""

Sealer: TypeAlias = Callable[[bytearray, int], EnvelopeKeyRecord]


class KeyRing(KeyLoader):
    """The keys of one level, and which of them take new writes. Thread-safe."""

    _replaced_when: tuple[type[AsherahError], ...] = ()
    """What makes the latest key, if it can't be opened, give way to a new one instead of failing new writes."""

    def __init__(self, collaborators: Collaborators) -> None:
        super().__init__(collaborators)
        self._newest = NewestRecords(collaborators.metastore, self.find_fault, collaborators.notify)

    def current(self, key_id: str) -> CryptoKey:
        """Return the key that new writes use: the latest valid one, made now if there is none.

        Raises:
            EncryptionError: no key can be made that stays valid.
            KMSError, MetastoreError: none is cached, and none can be loaded or made.
        """
        key = self.current_in_hand(key_id)
        if key is not None:
            return key
        with self._notify.held():
            if not self._may_wait():
                return self._renew(key_id, self.cache.current(key_id), self._clocks.now())
            lock = self.cache.loading(key_id)
            if not lock.acquire(timeout=self._loading_timeout):
                return self._without_check(key_id)
            try:
                key, now = self.cache.current(key_id), self._clocks.now()
                if key is not None and key.takes_writes(now.timer):
                    return key
                return self._renew(key_id, key, now)
            finally:
                lock.release()

    def current_in_hand(self, key_id: str) -> CryptoKey | None:
        """Return the cached key for new writes if it may be used without waiting for a look at its record, else None.

        To a caller that must not wait, it serves while a thread has that look, and makes the next key if it is time.
        """
        key = self.cache.current(key_id)
        if key is None or key.takes_writes(self._timer()):
            return key
        if not self.threads.must_not_wait():
            return None
        now = self._clocks.now()
        if self._checks.is_under_way(key_id):
            # Whatever that check has found so far: a newer key takes its place at once. If it ever ends.
            return key if now.wall <= self._policy.ends_at(key.meta.created) else None
        if not self._serves_unseen(key, now):
            return None
        self._check_later(key)
        return key

    def rotate(self, key_id: str) -> CryptoKey:
        """Make a new key now, whatever the age of the latest, and let new writes use it.

        Raises:
            KMSError, MetastoreError: it can't be made; the latest stays in use.
        """
        with self._notify.held(), self._loading(key_id):
            now = self._clocks.now()
            key = self._create(key_id, self._newest.find(key_id, now.wall), now)
            self.cache.make_current(key)
            return key

    @abstractmethod
    def _sealer(self) -> Sealer:
        """Return what makes of a raw key and its creation time the record that holds it: all under the same parent."""

    def validity(self, key: CryptoKey) -> tuple[float, float]:
        """Return until when ``key`` takes new writes (Unix seconds), and when that must be looked at again (timer)."""
        valid_until = 0.0 if key.is_for_reading else self._valid_until(key.record)
        return max(valid_until, key.grace_until), key.check_at

    def _valid_until(self, record: EnvelopeKeyRecord) -> float:
        return 0.0 if record.revoked else self._policy.expires_at(record.created)

    def find_fault(self, key_id: str, record: EnvelopeKeyRecord, now: float) -> str:
        """Return why new writes must not go by a record at a moment (Unix seconds); ``""`` if they may."""
        if self._policy.is_from_future(record.created, now):
            return (
                f"a key created {record.created} is more than {MAX_SKEW} seconds ahead of this host's clock: either "
                "this clock is behind, or the host that made the key was ahead"
            )
        return ""

    def _is_due(self, key: CryptoKey, now: Moment) -> bool:
        """Tell whether a valid key is to be followed by a new one now, ahead of its end."""
        left = self._policy.expires_at(key.meta.created) - now.wall
        ahead = self._policy.renew_ahead
        # Drawn anew each time, so that the processes of a deployment don't all ask the KMS in the same second.
        return left < ahead and left < ahead * int.from_bytes(self._random(4)) / 2**32

    def _refresh_validity(self, key: CryptoKey, now: Moment) -> bool:
        """Find anew until when ``key`` takes new writes; tell whether it does now."""
        key.allow_writes(*self.validity(key), now)
        return key.is_valid(now.wall)

    def _check_later(self, key: CryptoKey) -> None:
        key_id = key.meta.key_id
        if self.cache.current(key_id) is key and self._serves_unseen(key, self._clocks.now()):
            self._checks.start(key_id, partial(self._check_now, key, self._check_current))
        else:
            super()._check_later(key)

    def _check_current(self, key: CryptoKey) -> None:
        """Check a key that took new writes, and make the next if it is time; the caller holds the id's lock."""
        key_id, now = key.meta.key_id, self._clocks.now()
        current = self.cache.current(key_id)
        try:
            if current is None or not current.takes_writes(now.timer):
                self._renew(key_id, current, now)
        except AsherahError:
            # Those who wait for a key are refused this one, so those who can't wait don't get it either.
            if current is not None:
                current.stop_writes(current.check_at)
            raise
        self._check(key)  # Another may take the writes now, and this one goes on reading.

    def _without_check(self, key_id: str) -> CryptoKey:
        """Return the key that another thread has been checking for too long, if it is valid as far as is known."""
        key = self.cache.current(key_id)
        if key is not None and key.is_committed and key.is_valid(self._clocks.wall()):
            return key
        raise self._still_loading(key_id)

    def _renew(self, key_id: str, held: CryptoKey | None, now: Moment) -> CryptoKey:
        """Find or make the key for new writes. The caller holds the id's lock, if it may wait for it."""
        self._notify(CacheMissed(key_id))
        may_go_on = self._serves_unseen
        try:
            record = self._newest.find(key_id, now.wall)
            may_go_on = self._may_go_on
            key = self._find_valid(key_id, record, now)
            if key is None:
                key = self._create_unless_made(key_id, record, now)
            elif self._is_due(key, now):
                key = self._create_ahead(key, record, now)
        except (MetastoreError, KMSError) as exc:
            if held is None or not may_go_on(held, now):
                raise
            return self._go_on(held, now, exc)
        self.cache.make_current(key)
        return key

    def _find_valid(self, key_id: str, record: EnvelopeKeyRecord | None, now: Moment) -> CryptoKey | None:
        """Return a key that takes new writes, where ``record`` is the newest; None if there is none."""
        return self._valid_latest(key_id, record, now)

    def _valid_latest(self, key_id: str, record: EnvelopeKeyRecord | None, now: Moment) -> CryptoKey | None:
        if record is None:
            return None
        meta = KeyMeta(key_id, record.created)
        if now.wall > self._valid_until(record):
            # Not opened: its KMS key may be gone, and that is no reason to hold up new writes.
            self._update_record(meta, record)
            return None
        try:
            key = self._open_or_reuse(meta, record, now)
            return key if self._refresh_validity(key, now) else None
        except self._replaced_when as exc:
            logger.warning("key %s can't be opened, so new writes get a new key: %s", meta, exc)
            return None

    def _create_ahead(self, key: CryptoKey, record: EnvelopeKeyRecord | None, now: Moment) -> CryptoKey:
        """Make the key that follows ``key``; go on with that one if it can't be made, or another thread makes it."""
        lock = self.cache.loading(key.meta.key_id)
        if not lock.acquire(blocking=False):
            return key
        try:
            return self._made_meanwhile(key.meta.key_id, key) or self._create(key.meta.key_id, record, now)
        except AsherahError as exc:
            self._note_failed_renewal(key, exc)
            return key
        finally:
            lock.release()

    def _note_failed_renewal(self, key: CryptoKey, cause: AsherahError) -> None:
        self._notify(RenewalFailed(key.meta, self._grace_end(key), cause))

    def _serves_unseen(self, held: CryptoKey, now: Moment) -> bool:
        """Tell whether new writes may go on under ``held`` although the metastore can't be asked about it."""
        return held.is_committed and now.wall <= self._grace_end(held)

    def _may_go_on(self, held: CryptoKey, now: Moment) -> bool:
        """Tell whether new writes may go on under ``held`` although it can't be renewed."""
        if not self._serves_unseen(held, now):
            return False
        # The KMS is down, or the metastore stores nothing, but it answers: a revocation is not to be missed.
        try:
            return not self._is_revoked(held)
        except MetastoreError:  # It answered a moment ago, and is down, too, by now.
            return True

    def _grace_end(self, key: CryptoKey) -> float:
        """Return until when ``key`` takes new writes if no new one can be made (Unix seconds)."""
        return 0.0 if key.is_retired else self._policy.ends_at(key.meta.created)

    def _is_revoked(self, held: CryptoKey) -> bool:
        record = self._metastore.load(held.meta)
        return record is None or bool(record.revoked)

    def _go_on(self, held: CryptoKey, now: Moment, cause: AsherahError) -> CryptoKey:
        if not held.is_valid(now.wall):
            held.grace_until = self._grace_end(held)
            self._note_failed_renewal(held, cause)
        return self._trust_a_little_longer(held, now, cause)

    def _create_unless_made(self, key_id: str, newest: EnvelopeKeyRecord | None, now: Moment) -> CryptoKey:
        with self._loading(key_id):
            return self._made_meanwhile(key_id) or self._create(key_id, newest, now)

    def _made_meanwhile(self, key_id: str, before: CryptoKey | None = None) -> CryptoKey | None:
        """Return the key that another thread has made, if new writes use it now; ``before`` is the one before it."""
        key = self.cache.current(key_id)
        return key if key is not None and key is not before and key.takes_writes(self._timer()) else None

    def _create(self, key_id: str, newest: EnvelopeKeyRecord | None, now: Moment) -> CryptoKey:
        """Make and store a key that is newer than ``newest``; whoever's record is stored first is the key."""
        refused = None
        for _ in range(CREATE_ATTEMPTS):
            meta = self._next_meta(key_id, newest, now, refused)
            key = self._store_new(meta, now)
            if key is not None:
                return key
            refused, newest = meta, self._newest.find(key_id, now.wall)
            if newest is None:
                self._require_some(meta)
            key = self._valid_latest(key_id, newest, now) if is_rival(newest, meta) else None
            if key is not None:
                return key
        raise never_valid(key_id)

    def _next_meta(
        self, key_id: str, newest: EnvelopeKeyRecord | None, now: Moment, refused: KeyMeta | None = None
    ) -> KeyMeta:
        """Return the name of a key made now: newer than ``newest``, and than one whose place was taken."""
        # One second later than the newest, whether that was revoked in its own minute or made by a fast clock.
        taken = [other.created + 1 for other in (newest, refused) if other is not None]
        require_representable(now.wall)
        return KeyMeta(key_id, require_representable(max([self._policy.created_at(now.wall), *taken])))

    def _store_new(self, meta: KeyMeta, now: Moment) -> CryptoKey | None:
        """Make a key and store it, unless another's record is there already."""
        key = self._make(meta, self._sealer)
        return self._begin_use(key, now) if self._metastore.store(meta.key_id, key.record) else None

    def _make(self, meta: KeyMeta, find_sealer: Callable[[], Sealer]) -> CryptoKey:
        """Return a new key, which has yet to be stored."""
        raw = bytearray(self._random(KEY_LENGTH))
        try:
            return CryptoKey(meta, find_sealer()(raw, meta.created), make_cipher(raw, self._random))
        finally:
            wipe(raw)

    def _begin_use(self, key: CryptoKey, now: Moment) -> CryptoKey:
        """Let new writes use a key that this ring has just stored, and tell of it."""
        self.cache.put(key)
        self._schedule_check(key, now)
        self._refresh_validity(key, now)
        self.cache.make_current(key)
        self._notify(KeyCreated(key.meta))
        return key

    def _require_some(self, meta: KeyMeta) -> None:
        """Do nothing if there is any row of the id of ``meta``, a key that the metastore has just refused.

        Raises:
            MetastoreError: there is none.
        """
        if self._newest.holds_none(meta.key_id):
            raise MetastoreError(
                f"the metastore refused key {meta.key_id} created {meta.created}, yet holds none of this id"
            )


def is_rival(newest: EnvelopeKeyRecord | None, refused: KeyMeta) -> bool:
    """Tell whether a newest record stands where key ``refused`` was to be stored, or later.

    If not, what has that place is no key of ours, and the newest is the one that was to be followed.
    """
    return newest is not None and newest.created >= refused.created


def never_valid(key_id: str) -> EncryptionError:
    """Return the error for an id of which no key stays valid."""
    return EncryptionError(
        f"no valid key {key_id} could be stored in {CREATE_ATTEMPTS} attempts: others keep retiring it"
    )
