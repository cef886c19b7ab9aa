"""The two levels of the hierarchy: what opens and seals the keys of each."""

from __future__ import annotations

from django_asherah.envelope.batches import BatchKeyRing
from django_asherah.envelope.interfaces import KeyManagementService, RecordRefused
from django_asherah.envelope.keyring import Collaborators, Sealer
from django_asherah.envelope.keys import CryptoKey
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta
from django_asherah.exceptions import AsherahError, DecryptionError, InvalidRecordError, KeyNotFoundError


class SystemKeys(BatchKeyRing):
    """System keys, wrapped by the KMS."""

    def __init__(self, collaborators: Collaborators, kms: KeyManagementService) -> None:
        super().__init__(collaborators)
        self._kms = kms

    def _open(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> bytearray:
        try:
            return self._kms.decrypt_key(record.key)
        except AsherahError as exc:
            exc.at(f"system key {meta}")
            raise

    def _sealer(self) -> Sealer:
        return lambda raw, created: EnvelopeKeyRecord(created=created, key=self._kms.encrypt_key(raw))


class IntermediateKeys(BatchKeyRing):
    """Intermediate keys, one per partition, sealed by system keys."""

    # A system key that can't be opened is never replaced so: its KMS may be back in a minute.
    _replaced_when = (KeyNotFoundError, DecryptionError)

    def __init__(self, collaborators: Collaborators, system_keys: SystemKeys, system_key_id: str) -> None:
        super().__init__(collaborators)
        self._system_keys = system_keys
        self._system_key_id = system_key_id

    def _open(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> bytearray:
        try:
            # The system key that the record names, which need not be the current one.
            return self._parent(record).cipher.open_key(record.key)
        except AsherahError as exc:
            exc.at(f"intermediate key {meta}")
            raise

    def _sealer(self) -> Sealer:
        parent = self._system_keys.current(self._system_key_id)
        return lambda raw, created: EnvelopeKeyRecord(
            created=created, key=parent.cipher.seal(raw), parent_key_meta=parent.meta
        )

    def _openable(self, records: dict[KeyMeta, EnvelopeKeyRecord]) -> dict[KeyMeta, EnvelopeKeyRecord]:
        parents = {meta: parent for meta, record in records.items() if (parent := record.parent_key_meta)}
        opened = self._system_keys.load_many(parents.values())
        # A KMS that is down was asked once per system key, and is not asked again for each of its children.
        return {meta: records[meta] for meta, parent in parents.items() if parent in opened}

    def validity(self, key: CryptoKey) -> tuple[float, float]:
        """Return the same as for any key, and never more than its parent has."""
        own = super().validity(key)
        parent = self._system_keys.validity(self._parent(key.record))
        return min(own[0], parent[0]), min(own[1], parent[1])

    def tell_refused(self, key_id: str, created: int | None, cause: DecryptionError) -> None:
        """Tell of a record that should be under the key ``key_id`` and can't be trusted; see :class:`RecordRefused`."""
        self._notify(RecordRefused(key_id, created, f"{type(cause).__name__}: {cause}"))

    def _parent(self, record: EnvelopeKeyRecord) -> CryptoKey:
        if record.parent_key_meta is None:
            raise InvalidRecordError("its record names no system key")
        return self._system_keys.exact(record.parent_key_meta)
