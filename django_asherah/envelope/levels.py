"""The two levels of the hierarchy: what opens and seals the keys of each."""

from __future__ import annotations

from django_asherah.envelope.batches import BatchKeyRing
from django_asherah.envelope.interfaces import KeyManagementService
from django_asherah.envelope.keyring import Collaborators, Sealer
from django_asherah.envelope.keys import CryptoKey
from django_asherah.envelope.partition import partition_under
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, printable
from django_asherah.exceptions import (
    AsherahError,
    DecryptionError,
    InvalidRecordError,
    KeyNotFoundError,
    PartitionMismatchError,
)


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

    def _is_ours(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> bool:
        """Tell whether a key is of this service and product: another's may have the same id."""
        parent = record.parent_key_meta
        return parent is not None and partition_under(self._system_key_ids, meta.key_id, parent.key_id) is not None

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
