"""What every lifecycle function needs of the running engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from django_asherah import engine
from django_asherah.envelope.records import KeyMeta
from django_asherah.envelope.session import SessionFactory
from django_asherah.exceptions import MetastoreError
from django_asherah.kms.regional import RegionalKMS
from django_asherah.metastores.database import DatabaseMetastore
from django_asherah.metastores.table import KeyTable


@dataclass(frozen=True, slots=True)
class Context:
    """The engine, with no key in hand, and its key table."""

    factory: SessionFactory
    table: KeyTable

    @property
    def intermediate_id_tail(self) -> str:
        """What the ids of all intermediate keys of this service and product end in."""
        return self.factory.system_key_id.removeprefix("_SK")

    @property
    def regions(self) -> Mapping[str, str] | None:
        """The configured regions and their master keys, the preferred one first; None if the KMS has no regions."""
        kms = self.factory.kms
        return kms.master_keys if isinstance(kms, RegionalKMS) else None

    def partition_of(self, key_id: str, parent: KeyMeta | None) -> str | None:
        """Return the partition of one of our own intermediate keys, else None.

        The parent decides: ids are joined without escaping, so that the key of partition ``p`` of service ``a_b``
        has an id like one of partition ``p_a`` of service ``b``.
        """
        tail = self.intermediate_id_tail
        if parent is not None and parent.key_id != self.factory.system_key_id:
            return None
        if key_id.startswith("_IK_") and key_id.endswith(tail) and len(key_id) > len("_IK_") + len(tail):
            return key_id[len("_IK_") : -len(tail)]
        return None


def get_context(*, keep_keys: bool = False) -> Context:
    """Return the context of the settings as they are now.

    Args:
        keep_keys: leave the keys that are in hand there. What reads or changes keys must not rely on them.

    Raises:
        ImproperlyConfigured: the settings are wrong.
        MetastoreError: the keys are not in a Django database.
    """
    factory = engine.get_factory()
    if not isinstance(factory.metastore, DatabaseMetastore):
        raise MetastoreError(
            f"this needs the keys to be in a Django database (ASHERAH['METASTORE'] = 'database'), "
            f"not in {type(factory.metastore).__name__}"
        )
    if not keep_keys:
        factory.clear()
    return Context(factory, KeyTable(factory.metastore.alias))
