"""Key ids: the kinds of keys, how an id is built, and how one is recognised.

Source: ``go/appencryption/partition.go`` of godaddy/asherah. The ids are the wire format and may never change: parts
joined by ``_`` without escaping, so that two different (partition, service, product) triples can make the same id.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from django_asherah.envelope.records import MAX_KEY_ID_LENGTH
from django_asherah.exceptions import EncryptionError

NAME = re.compile(r"[A-Za-z0-9._-]+")
"""What a service, a product or a suffix may be. The Rust SDK's metastore reader does not decode JSON escapes, and a
system key id stands inside every intermediate key's record, so it must not need any."""


class KeyKind(StrEnum):
    """The kinds of keys that stand in the key table. Each kind's ids have a prefix of their own."""

    SYSTEM = "system"
    INTERMEDIATE = "intermediate"

    @property
    def prefix(self) -> str:
        """What the ids of this kind begin with."""
        return _PREFIXES[self]


_MOST_SHOWN = 40
"""Characters of a bad partition that an error shows."""

_PREFIXES = {KeyKind.SYSTEM: "_SK_", KeyKind.INTERMEDIATE: "_IK_"}


def kind_of(key_id: str) -> KeyKind | None:
    """Return the kind of the key with this id; None for a row of the key table that is no key."""
    return next((kind for kind, prefix in _PREFIXES.items() if key_id.startswith(prefix)), None)


def system_key_id(service: str, product: str, suffix: str = "") -> str:
    """Return ``_SK_{service}_{product}``, followed by ``_{suffix}`` if there is one."""
    return KeyKind.SYSTEM.prefix + "_".join([service, product, *([suffix] if suffix else [])])


def intermediate_key_id(partition_id: str, system_id: str) -> str:
    """Return ``_IK_{partition_id}_{service}_{product}``, and any suffix: the id of a partition's intermediate key."""
    return f"{KeyKind.INTERMEDIATE.prefix}{partition_id}{intermediate_id_tail(system_id)}"


def intermediate_id_tail(system_id: str) -> str:
    """Return what the ids of all intermediate keys under the system key id ``system_id`` end in."""
    return f"_{system_id.removeprefix(KeyKind.SYSTEM.prefix)}"


def partition_of(key_id: str, system_id: str) -> str | None:
    """Return the partition whose intermediate key under ``system_id`` has this id, or None if none has.

    Undoes :func:`intermediate_key_id`. The id alone does not prove whose key it is: the key of partition ``p`` of
    service ``a_b`` has an id like one of partition ``p_a`` of service ``b``.
    """
    # An id can't be parsed back, as any part may hold a "_": only to build it again tells whether the guess is right.
    partition_id = key_id.removeprefix(KeyKind.INTERMEDIATE.prefix).removesuffix(intermediate_id_tail(system_id))
    is_one = partition_id and intermediate_key_id(partition_id, system_id) == key_id
    return partition_id if is_one else None


def is_storable(text: str) -> bool:
    """Tell whether databases can store a text: with neither NUL nor lone surrogates."""
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


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
        key_id = intermediate_key_id(self.partition_id, system_id)
        if len(key_id) > MAX_KEY_ID_LENGTH:
            raise EncryptionError(
                f"partition {_shown(self.partition_id)} of {len(self.partition_id)} characters makes a key id of "
                f"{len(key_id)} characters; the key table holds {MAX_KEY_ID_LENGTH}: choose a shorter partition"
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
    if not is_storable(partition_id):
        raise EncryptionError(
            f"a partition must not hold NUL or lone surrogates, as {_shown(partition_id)} does: "
            "no database can store them"
        )


def _shown(partition_id: str) -> str:
    return repr(partition_id if len(partition_id) <= _MOST_SHOWN else f"{partition_id[:_MOST_SHOWN]}…")
