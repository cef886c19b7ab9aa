"""Many keys at once: loaded together, made together, with a few calls of the metastore for a thousand of them.

What holds for one key in :mod:`django_asherah.envelope.keyring` holds for each of them.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress

from django_asherah.envelope.clocks import Moment
from django_asherah.envelope.interfaces import CacheMissed
from django_asherah.envelope.keyring import CREATE_ATTEMPTS, KeyRing, is_rival, never_valid
from django_asherah.envelope.keys import CryptoKey
from django_asherah.envelope.loading import Collaborators
from django_asherah.envelope.one_by_one import many_at_once
from django_asherah.envelope.parts import parts_of
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta
from django_asherah.envelope.unavailable import Unavailable
from django_asherah.exceptions import AsherahError, KMSError, MetastoreError

KEYS_AT_ONCE = 1000
"""Keys that are locked, read and stored together: as many as a failure in the midst of a million can hold up."""


class BatchKeyRing(KeyRing):
    """A key ring that takes many keys at once, too.

    Whoever loads or makes several keys holds the locks of all their ids. They are taken in the order of the ids, and
    who holds one key's lock never waits for another's of the same level: so no two threads can wait for each other.
    """

    def __init__(self, collaborators: Collaborators) -> None:
        super().__init__(collaborators)
        self._many = many_at_once(collaborators.metastore)
        self._unavailable = Unavailable(collaborators.cache_size)

    def load_many(self, metas: Iterable[KeyMeta]) -> dict[KeyMeta, CryptoKey]:
        """Return those of these keys that open, and load them together where they are not cached or due for a check.

        What can't be loaded is passed over, and not asked for again here for ten seconds: :meth:`exact` says why.

        Raises:
            MetastoreError: the metastore can't be read, and a key that is not cached was wanted.
        """
        now = self._timer()
        keys: dict[KeyMeta, CryptoKey] = {}
        wanted: list[KeyMeta] = []
        for meta in dict.fromkeys(metas):
            key = self.in_hand(meta)
            if key is not None:
                keys[meta] = key
            elif not self._unavailable.has(meta, now):
                wanted.append(meta)
        for part in parts_of(wanted, KEYS_AT_ONCE):
            try:
                keys |= self._load_part(part)
            except KMSError:  # Another thread has been loading one of them for too long.
                self._note_unavailable(part, self._clocks.now())
        return keys

    def current_many(self, key_ids: Iterable[str]) -> dict[str, CryptoKey]:
        """Return the keys that new writes of these ids use: as :meth:`current`, but loaded and made together.

        Raises:
            KMSError, MetastoreError: one is not cached, and can't be loaded or made.
        """
        keys: dict[str, CryptoKey] = {}
        wanted: list[str] = []
        for key_id in dict.fromkeys(key_ids):
            key = self.current_in_hand(key_id)
            if key is not None:
                keys[key_id] = key
            else:
                wanted.append(key_id)
        for part in parts_of(wanted, KEYS_AT_ONCE):
            with self._notify.held(), self._locked(part if self._may_wait() else ()):
                keys |= self._renew_part(part)
        return keys

    def rotate_many(self, key_ids: Iterable[str]) -> dict[str, CryptoKey]:
        """Make a new key of each of these ids now, as :meth:`rotate` does.

        Raises:
            KMSError, MetastoreError: they can't be made; the latest stay in use.
        """
        keys: dict[str, CryptoKey] = {}
        for part in parts_of(dict.fromkeys(key_ids), KEYS_AT_ONCE):
            with self._notify.held(), self._locked(part):
                now = self._clocks.now()
                latest = self._newest.find_many(part, now.wall)
                keys |= self._create_many({key_id: latest.get(key_id) for key_id in part}, now)
        return keys

    def newest_records(self, key_ids: Sequence[str]) -> dict[str, EnvelopeKeyRecord]:
        """Return the newest record of each of these ids that new writes may go by, be it expired or revoked.

        Raises:
            MetastoreError: the metastore fails.
        """
        return self._newest.find_many(key_ids, self._clocks.wall())

    def clear(self) -> None:
        """Forget every opened key, and which could not be opened."""
        super().clear()
        self._unavailable.clear()

    @contextmanager
    def _locked(self, key_ids: Iterable[str], not_waited_for: Container[str] = ()) -> Iterator[set[str]]:
        """Hold the locks of these ids. Yields those of ``not_waited_for`` whose lock another thread holds."""
        with ExitStack() as stack:
            busy = set()
            for key_id in sorted(set(key_ids)):
                if key_id not in not_waited_for:
                    stack.enter_context(self._loading(key_id))
                elif (lock := self.cache.loading(key_id)).acquire(blocking=False):
                    stack.callback(lock.release)
                else:
                    busy.add(key_id)
            yield busy

    def _load_part(self, metas: list[KeyMeta]) -> dict[KeyMeta, CryptoKey]:
        # Only whoever checks a key waits for a slow metastore: the others read on with the key they have.
        lacking = {meta.key_id for meta in metas if (key := self.cache.get(meta)) is None or not key.is_committed}
        cached = {meta.key_id for meta in metas} - lacking
        with self._notify.held(), self._locked(cached | lacking if self._may_wait() else cached, cached) as busy:
            now = self._clocks.now()
            keys: dict[KeyMeta, CryptoKey] = {}
            wanted: list[KeyMeta] = []
            for meta in metas:
                key = self.cache.get(meta)
                if key is not None and (key.is_trusted(now.timer) or meta.key_id in busy):
                    keys[meta] = key
                elif meta.key_id not in busy:
                    wanted.append(meta)
            try:
                return keys | self._load_wanted(wanted, now)
            except MetastoreError:
                self._note_unavailable(wanted, now)
                raise

    def _load_wanted(self, metas: list[KeyMeta], now: Moment) -> dict[KeyMeta, CryptoKey]:
        """Load or check keys."""
        if not metas:
            return {}
        for meta in metas:
            self._notify(CacheMissed(meta.key_id))
        try:
            found = self._metastore.load_many(metas)
        except MetastoreError as exc:
            return self._trust_all_a_little_longer(metas, now, exc)
        records = {meta: found[meta] for meta in metas if meta in found and found[meta].created == meta.created}
        cached = {meta: record for meta, record in records.items() if self._update_record(meta, record)}
        sealed = {meta: record for meta, record in records.items() if meta not in cached}
        keys: dict[KeyMeta, CryptoKey] = {}
        for meta, record in {**cached, **self._openable(sealed)}.items():
            with suppress(AsherahError):
                keys[meta] = self._open_or_reuse(meta, record, now)
        for meta in metas:
            if meta not in keys and (held := self.cache.get(meta)) is not None and held.is_committed:
                with suppress(AsherahError):
                    keys[meta] = self._load(meta)
        self._note_unavailable((meta for meta in metas if meta not in keys), now)
        return keys

    def _openable(self, records: dict[KeyMeta, EnvelopeKeyRecord]) -> dict[KeyMeta, EnvelopeKeyRecord]:
        """Return those of these records that are worth an attempt."""
        return records

    def _note_unavailable(self, metas: Iterable[KeyMeta], now: Moment) -> None:
        for meta in metas:
            self._unavailable.add(meta, now.timer)

    def _trust_all_a_little_longer(
        self, metas: list[KeyMeta], now: Moment, cause: MetastoreError
    ) -> dict[KeyMeta, CryptoKey]:
        cached = {meta: key for meta in metas if (key := self.cache.get(meta)) is not None and key.is_committed}
        keys = {meta: self._trust_a_little_longer(key, now, cause) for meta, key in cached.items()}
        if len(keys) < len(metas):
            raise cause
        return keys

    def _renew_part(self, key_ids: list[str]) -> dict[str, CryptoKey]:
        """Find or make the keys for new writes. The caller holds the ids' locks, if it may wait for them."""
        now = self._clocks.now()
        held = {key_id: self.cache.current(key_id) for key_id in key_ids}
        keys = {key_id: key for key_id, key in held.items() if key is not None and key.takes_writes(now.timer)}
        due = [key_id for key_id in key_ids if key_id not in keys]
        for key_id in due:
            self._notify(CacheMissed(key_id))
        may_go_on = self._serves_unseen
        try:
            latest = self._newest.find_many(due, now.wall)
            may_go_on = self._may_go_on
            valid = self._valid_of(latest, now)
            keys |= valid | self._create_many_ahead(valid, latest, now)
            lacking = {key_id: latest.get(key_id) for key_id in due if key_id not in keys}
            with self._locked(lacking):
                made = self._all_made_meanwhile(dict.fromkeys(lacking))
                unmade = {key_id: record for key_id, record in lacking.items() if key_id not in made}
                keys |= made | self._create_many(unmade, now)
        except (MetastoreError, KMSError) as exc:
            for key_id in due:
                if key_id in keys:
                    continue
                key = held[key_id]
                if key is None or not may_go_on(key, now):
                    raise
                keys[key_id] = self._go_on(key, now, exc)
        return keys

    def _create_many_ahead(
        self, valid: Mapping[str, CryptoKey], latest: Mapping[str, EnvelopeKeyRecord], now: Moment
    ) -> dict[str, CryptoKey]:
        """Make the keys that follow those of ``valid`` which are due; none if they can't be made now."""
        due = {key_id: latest[key_id] for key_id, key in valid.items() if self._is_due(key, now)}
        with self._locked(due, due) as busy:
            made = self._all_made_meanwhile({key_id: valid[key_id] for key_id in due})
            free = {key_id: record for key_id, record in due.items() if key_id not in busy | made.keys()}
            try:
                return made | self._create_many(free, now) if free else made
            except AsherahError as exc:
                for key_id in free:
                    self._note_failed_renewal(valid[key_id], exc)
                return made

    def _all_made_meanwhile(self, before: Mapping[str, CryptoKey | None]) -> dict[str, CryptoKey]:
        """Return the keys that other threads have made of these ids, given the keys before them, if any."""
        found = {key_id: self._made_meanwhile(key_id, old) for key_id, old in before.items()}
        return {key_id: key for key_id, key in found.items() if key is not None}

    def _valid_of(self, latest: Mapping[str, EnvelopeKeyRecord], now: Moment) -> dict[str, CryptoKey]:
        """Return those of the latest keys that take new writes, and let new writes use them."""
        keys: dict[str, CryptoKey] = {}
        for key_id, record in latest.items():
            key = self._valid_latest(key_id, record, now)
            if key is not None:
                self.cache.make_current(key)
                keys[key_id] = key
        return keys

    def _create_many(self, newest: Mapping[str, EnvelopeKeyRecord | None], now: Moment) -> dict[str, CryptoKey]:
        """Make and store keys that are newer than ``newest``, by id; whoever's record is stored first is the key."""
        keys: dict[str, CryptoKey] = {}
        lost: dict[str, KeyMeta] = {}
        for _ in range(CREATE_ATTEMPTS):
            metas = [self._next_meta(key_id, record, now, lost.get(key_id)) for key_id, record in newest.items()]
            keys |= self._store_new_many(metas, now)
            lost = {meta.key_id: meta for meta in metas if meta.key_id not in keys}
            if not lost:
                return keys
            found = self._newest.find_many(list(lost), now.wall)
            for key_id, meta in lost.items():
                if key_id not in found:
                    self._require_some(meta)
            rivals = {key_id: record for key_id, record in found.items() if is_rival(record, lost[key_id])}
            keys |= self._valid_of(rivals, now)
            newest = {key_id: found.get(key_id) for key_id in lost if key_id not in keys}
        raise never_valid(next(iter(newest)))

    def _store_new_many(self, metas: list[KeyMeta], now: Moment) -> dict[str, CryptoKey]:
        """Make keys and store them; return those whose place was free, and let new writes use them."""
        if not metas:
            return {}
        seal = self._sealer()
        made = {meta: self._make(meta, lambda: seal) for meta in metas}
        stored = self._many.store_many({meta: key.record for meta, key in made.items()})
        keys = {}
        for meta, key in made.items():
            if meta in stored:
                keys[meta.key_id] = self._begin_use(key, now)
        return keys
