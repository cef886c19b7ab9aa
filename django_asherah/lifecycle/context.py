"""What every lifecycle function needs of the running engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from django_asherah import engine
from django_asherah.envelope.partition import partition_under
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta
from django_asherah.envelope.session import SessionFactory
from django_asherah.exceptions import AsherahError
from django_asherah.kms.regional import is_regional
from django_asherah.metastores.key_table import KeyTable


@dataclass(frozen=True, slots=True)
class Context:
    """The engine with opened keys of its own, of which there are none yet, and its key table."""

    factory: SessionFactory
    table: KeyTable

    @property
    def regions(self) -> Mapping[str, str] | None:
        """The configured regions and their master keys, the preferred one first; None if the KMS has no regions."""
        kms = self.factory.kms
        return kms.master_keys if is_regional(kms) else None

    def regions_of(self, record: EnvelopeKeyRecord) -> dict[str, str]:
        """Return the regions that wrap a system key, with their master keys; none if another KMS wrapped it."""
        kms = self.factory.kms
        try:
            return dict(kms.regions_of(record.key)) if is_regional(kms) else {}
        except AsherahError:
            return {}

    def first_unexpired(self) -> int:
        """Return the creation time (Unix seconds) of the oldest key that is not expired: all older ones are."""
        return ceil(self.factory.clock() - self.factory.policy.expire_after)

    def is_from_future(self, created: int) -> bool:
        """Tell whether a key was created by a clock that was ahead: it takes no new writes."""
        return self.factory.policy.is_from_future(created, self.factory.clock())

    def partition_of(self, key_id: str, parent: KeyMeta | None) -> str | None:
        """Return the partition of one of the intermediate keys that this service and product reads, else None.

        The parent decides: ids are joined without escaping, so that the key of partition ``p`` of service ``a_b``
        has an id like one of partition ``p_a`` of service ``b``.
        """
        system_ids = self.factory.system_key_ids
        return partition_under(system_ids, key_id, system_ids[0] if parent is None else parent.key_id)


def get_context(*, replaces_records: bool = False) -> Context:
    """Return the context of the settings as they are now.

    Args:
        replaces_records: whether key records are to be replaced, which not every metastore can.

    Raises:
        ImproperlyConfigured: the settings are wrong.
        MetastoreError: the metastore can't do what is needed.
    """
    # What reads or changes keys must not rely on those that this process has opened, and must leave it these.
    factory = engine.get_factory().with_own_keys()
    table = KeyTable(factory.metastore)
    if replaces_records:
        table.require_replace()
    return Context(factory, table)
