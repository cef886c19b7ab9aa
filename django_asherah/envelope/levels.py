"""The two levels of the hierarchy: what opens and seals the keys of each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import islice

from django_asherah.envelope.batches import BatchKeyRing
from django_asherah.envelope.clocks import Moment
from django_asherah.envelope.interfaces import KeyManagementService, KeyPassedOver, RecordRefused
from django_asherah.envelope.keyring import Sealer
from django_asherah.envelope.keys import CryptoKey
from django_asherah.envelope.loading import Collaborators
from django_asherah.envelope.partition import partition_under
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, printable
from django_asherah.exceptions import (
    AsherahError,
    DecryptionError,
    InvalidRecordError,
    KeyNotFoundError,
    KMSError,
    PartitionMismatchError,
)

PATIENCE = 5.0
"""Seconds. A KMS that takes longer to say that it can't open a system key is down, and is not asked for another."""

MOST_TRIED = 3
"""System keys that are tried, from the newest on, before new writes fail."""


class SystemKeys(BatchKeyRing):
    """System keys, wrapped by the KMS."""

    def __init__(self, collaborators: Collaborators, kms: KeyManagementService) -> None:
        super().__init__(collaborators)
        self._kms = kms
        self._unstored: dict[str, CryptoKey] = {}

    def _open(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> bytearray:
        kept = self._unstored.get(meta.key_id)
        if kept is not None and kept.meta.created <= meta.created:
            # Another thread may have taken it: not all who are here hold the id's lock.
            self._unstored.pop(meta.key_id, None)
        try:
            return self._kms.decrypt_key(record.key)
        except AsherahError as exc:
            exc.at(f"system key {meta}")
            raise

    def _open_once(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> CryptoKey:
        # One asks the KMS and all others wait, those too who may not wait for the metastore: it isn't asked meanwhile.
        with self._holding(self.cache.opening(meta.key_id), meta.key_id):
            return self._update_record(meta, record) or super()._open_once(meta, record)

    def _find_valid(self, key_id: str, record: EnvelopeKeyRecord | None, now: Moment) -> CryptoKey | None:
        """Return the newest key, or if it can't be opened one before it that takes new writes, too.

        Whoever can insert one row, or has restored another project's, could stop the writes of every new partition.
        """
        started = self._timer()
        try:
            return self._valid_latest(key_id, record, now)
        except (KMSError, DecryptionError) as exc:
            key = None
            if record is not None and self._timer() - started <= PATIENCE:
                key = self._valid_before(key_id, record.created, now)
            if key is None:
                raise
            self._notify(KeyPassedOver(key_id, str(exc)))
            return key

    def _valid_before(self, key_id: str, created: int, now: Moment) -> CryptoKey | None:
        records = self._newest.find_before(key_id, created, now.wall)
        valid = (record for record in records if now.wall <= self._valid_until(record))
        for record in islice(valid, MOST_TRIED - 1):
            with suppress(KMSError, DecryptionError):
                return self._valid_latest(key_id, record, now)
        return None

    def _sealer(self) -> Sealer:
        return lambda raw, created: EnvelopeKeyRecord(created=created, key=self._kms.encrypt_key(raw))

    def clear(self) -> None:
        """Forget every opened key, and any that could not be stored."""
        super().clear()
        self._unstored.clear()

    # The KMS is not asked for another key at each attempt to store one. What waits here is taken by whoever holds the
    # id's lock, is never current before it is stored, and gives way to any key of its id that is as new.

    def _next_meta(
        self, key_id: str, newest: EnvelopeKeyRecord | None, now: Moment, refused: KeyMeta | None = None
    ) -> KeyMeta:
        kept = self._unstored.pop(key_id, None)
        if kept is None or kept.meta == refused or not self._may_yet_be_stored(kept, newest, now):
            return super()._next_meta(key_id, newest, now, refused)
        self._unstored[key_id] = kept
        return kept.meta

    def _may_yet_be_stored(self, kept: CryptoKey, newest: EnvelopeKeyRecord | None, now: Moment) -> bool:
        is_newest = newest is None or newest.created < kept.meta.created
        is_present = not self.find_fault(kept.meta.key_id, kept.record, now.wall)
        return is_newest and is_present and now.wall <= self._valid_until(kept.record)

    def _make(self, meta: KeyMeta, find_sealer: Callable[[], Sealer]) -> CryptoKey:
        key = self._unstored.get(meta.key_id) or super()._make(meta, find_sealer)
        self._unstored[meta.key_id] = key
        return key

    def _begin_use(self, key: CryptoKey, now: Moment) -> CryptoKey:
        self._unstored.pop(key.meta.key_id, None)
        return super()._begin_use(key, now)


class IntermediateKeys(BatchKeyRing):
    """Intermediate keys, one per partition, sealed by system keys."""

    # A system key that can't be opened is never replaced so: its KMS may be back in a minute.
    _replaced_when = (KeyNotFoundError, DecryptionError)

    def __init__(self, collaborators: Collaborators, system_keys: SystemKeys, system_key_ids: tuple[str, ...]) -> None:
        super().__init__(collaborators)
        self._system_keys = system_keys
        self._system_key_ids = system_key_ids

    def _open(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> bytearray:
        try:
            # The system key that the record names, which need not be the current one.
            return self._parent(meta, record).cipher.open_key(record.key)
        except AsherahError as exc:
            exc.at(f"intermediate key {meta}")
            raise

    def _sealer(self) -> Sealer:
        parent = self._system_keys.current(self._system_key_ids[0])
        return lambda raw, created: EnvelopeKeyRecord(
            created=created, key=parent.cipher.seal(raw), parent_key_meta=parent.meta
        )

    def _openable(self, records: dict[KeyMeta, EnvelopeKeyRecord]) -> dict[KeyMeta, EnvelopeKeyRecord]:
        ours = {meta: record for meta, record in records.items() if self._is_ours(meta, record)}
        parents = {meta: parent for meta, record in ours.items() if (parent := record.parent_key_meta)}
        opened = self._system_keys.load_many(parents.values())
        # A KMS that is down was asked once per system key, and is not asked again for each of its children.
        return {meta: records[meta] for meta, parent in parents.items() if parent in opened}

    def validity(self, key: CryptoKey) -> tuple[float, float]:
        """Return the same as for any key, and never more than its parent has."""
        own = super().validity(key)
        parent = self._system_keys.validity(self._parent(key.meta, key.record))
        return min(own[0], parent[0]), min(own[1], parent[1])

    def _is_due(self, key: CryptoKey, now: Moment) -> bool:
        """Tell the same as for any key, and whether the system key, once near its own end, has been followed."""
        if super()._is_due(key, now):
            return True
        parent = self._parent(key.meta, key.record).meta
        if self._policy.expires_at(parent.created) - now.wall >= self._policy.renew_ahead:
            return False
        try:
            return self._system_keys.current(self._system_key_ids[0]).meta.created > parent.created
        except AsherahError:
            return False  # It has told of that itself.

    def _serves_unseen(self, held: CryptoKey, now: Moment) -> bool:
        """Tell the same as for any key, and never if its system key is known to be revoked."""
        parent = held.record.parent_key_meta
        known = self._system_keys.cache.get(parent) if parent is not None else None
        is_out = known is not None and (known.record.revoked or known.is_for_reading)
        return not is_out and super()._serves_unseen(held, now)

    def _grace_end(self, key: CryptoKey) -> float:
        parent = key.record.parent_key_meta
        own = super()._grace_end(key)
        return own if parent is None else min(own, self._policy.ends_at(parent.created))

    def _is_revoked(self, held: CryptoKey) -> bool:
        parent = held.record.parent_key_meta
        record = self._metastore.load(parent) if parent is not None else None
        return record is None or bool(record.revoked) or super()._is_revoked(held)

    def find_fault(self, key_id: str, record: EnvelopeKeyRecord, now: float) -> str:
        """Return the same as for any key, and that a key is another service's."""
        parent = record.parent_key_meta
        if parent is None or self._is_ours(KeyMeta(key_id, record.created), record):
            return super().find_fault(key_id, record, now)
        return str(self._mismatch(parent))

    def _is_ours(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> bool:
        """Tell whether a key is of this service and product: another's may have the same id."""
        parent = record.parent_key_meta
        return parent is not None and partition_under(self._system_key_ids, meta.key_id, parent.key_id) is not None

    def tell_refused(self, key_id: str, created: int | None, cause: DecryptionError) -> None:
        """Tell of a record that should be under the key ``key_id`` and can't be trusted; see :class:`RecordRefused`."""
        self._notify(RecordRefused(key_id, created, f"{type(cause).__name__}: {cause}"))

    def _parent(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> CryptoKey:
        if record.parent_key_meta is None:
            raise InvalidRecordError("its record names no system key")
        if not self._is_ours(meta, record):
            raise self._mismatch(record.parent_key_meta)
        return self._system_keys.exact(record.parent_key_meta)

    def _mismatch(self, parent: KeyMeta) -> PartitionMismatchError:
        return PartitionMismatchError(
            f"its record names system key {printable(parent.key_id)}, and this service reads keys under "
            f"{', '.join(self._system_key_ids)} alone. If that is another region of this service, name its suffix in "
            "READ_SUFFIXES; if another service or product, their key ids can be the same: choose other names, or give "
            "each a key table of its own"
        )
