"""Partitions and the key ids made from them.

Source: ``go/appencryption/partition.go`` of godaddy/asherah. The ids are the wire format: parts joined by ``_``
without escaping, so they may never be parsed back, only compared for equality.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from django_asherah.envelope.records import MAX_KEY_ID_LENGTH
from django_asherah.exceptions import EncryptionError

NAME = re.compile(r"[A-Za-z0-9._-]+")
"""What a service, a product or a suffix may be. The Rust SDK's metastore reader does not decode JSON escapes, and a
system key id stands inside every intermediate key's record, so it must not need any."""


def system_key_id(service: str, product: str, suffix: str = "") -> str:
    """Return ``_SK_{service}_{product}``, with ``_{suffix}`` after it if there is one."""
    return "_".join(["_SK", service, product, *([suffix] if suffix else [])])


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition of one service and product: whose data it is, for example a tenant's.

    Raises:
        EncryptionError: a part is empty, too long, or holds what a key id must not.
    """

    partition_id: str
    service: str
    product: str
    suffix: str = ""
    intermediate_key_id: str = field(init=False)

    def __post_init__(self) -> None:
        for label, name in (("service", self.service), ("product", self.product)):
            _check_name(label, name)
        if self.suffix:
            _check_name("key suffix", self.suffix)
        _check_partition_id(self.partition_id)
        system_id = system_key_id(self.service, self.product, self.suffix)
        key_id = f"_IK_{self.partition_id}{system_id.removeprefix('_SK')}"
        if len(key_id) > MAX_KEY_ID_LENGTH:
            raise EncryptionError(
                f"partition of {len(self.partition_id)} characters makes a key id of {len(key_id)} characters; "
                f"the key table holds {MAX_KEY_ID_LENGTH}: choose a shorter partition"
            )
        object.__setattr__(self, "intermediate_key_id", key_id)


def _check_name(label: str, name: str) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise EncryptionError(f"{label} {name!r} must consist of letters, digits, '.', '_' and '-' (ASCII)")


def _check_partition_id(partition_id: str) -> None:
    if not isinstance(partition_id, str):
        raise EncryptionError(f"a partition must be a str, not {type(partition_id).__name__}")
    if not partition_id:
        raise EncryptionError("a partition must not be empty")
    if "\0" in partition_id or any("\ud800" <= char <= "\udfff" for char in partition_id):
        raise EncryptionError("a partition must not hold NUL or lone surrogates: no database can store them")
