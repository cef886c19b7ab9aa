"""Key ids: the kinds of keys, how an id is built, and how one is recognised.

Source: ``go/appencryption/partition.go`` of godaddy/asherah. The ids are the wire format and may never change: parts
joined by ``_`` without escaping, so that two different (partition, service, product) triples can make the same id.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
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


def readable_system_ids(service: str, product: str, suffix: str = "", others: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the ids of the system keys whose intermediate keys' data is read: the own first, and no id twice.

    These are the own, the one without a suffix, and one for each of the ``others``. One of them is left out if a key
    of one partition under it could have the same id as a key of another partition under one before it.
    """
    found: list[str] = []
    for each in (suffix, "", *others):
        system_id = system_key_id(service, product, each)
        if not any(may_collide(system_id, other) for other in found):
            found.append(system_id)
    return tuple(found)


def may_collide(system_id: str, other: str) -> bool:
    """Tell whether two partitions under these system key ids can have intermediate keys of the same id."""
    tails = intermediate_id_tail(system_id), intermediate_id_tail(other)
    return tails[0].endswith(tails[1]) or tails[1].endswith(tails[0])


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


def partition_under(system_ids: Sequence[str], key_id: str, parent_id: str) -> str | None:
    """Return the partition whose intermediate key this is, if that is one of the service that reads ``system_ids``.

    Its parent must be one of these system keys, which alone proves whose key it is, and its id one that a partition has
    under one of them. It need not be under the parent: the Rust SDK stores a key of one region's under the id that a
    record of another region's names (``SelfHealRecoveredKeys``).

    Args:
        system_ids: what :func:`readable_system_ids` returns.
        key_id: its id.
        parent_id: the id of the system key that its record names.
    """
    if parent_id not in system_ids:
        return None
    found = (partition_of(key_id, each) for each in (parent_id, *system_ids))
    return next((partition for partition in found if partition is not None), None)


def is_storable(text: str) -> bool:
    """Tell whether databases can store a text: with neither NUL nor lone surrogates."""
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition of one service and product: whose data it is, for example a tenant's.

    Attributes:
        read_suffixes: other suffixes, whose records are read as well.
        intermediate_key_id: the id of its key.
        readable_ids: the ids of the keys whose records are read: its own key's first, then those of the key without a
            suffix and with the ``read_suffixes``. A record's key is compared with the whole of them.

    Raises:
        EncryptionError: a part is empty, too long, or holds what a key id must not.
    """

    partition_id: str
    service: str
    product: str
    suffix: str = ""
    read_suffixes: tuple[str, ...] = ()
    intermediate_key_id: str = field(init=False)
    readable_ids: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        for label, name in (("service", self.service), ("product", self.product)):
            _check_name(label, name)
        for suffix in (self.suffix, *self.read_suffixes):
            if suffix:
                _check_name("key suffix", suffix)
        _check_partition_id(self.partition_id)
        system_ids = readable_system_ids(self.service, self.product, self.suffix, self.read_suffixes)
        readable = tuple(intermediate_key_id(self.partition_id, each) for each in system_ids)
        key_id = readable[0]
        if len(key_id) > MAX_KEY_ID_LENGTH:
            raise EncryptionError(
                f"partition {_shown(self.partition_id)} of {len(self.partition_id)} characters makes a key id of "
                f"{len(key_id)} characters; the key table holds {MAX_KEY_ID_LENGTH}: choose a shorter partition"
            )
        object.__setattr__(self, "intermediate_key_id", key_id)
        object.__setattr__(self, "readable_ids", readable)

    def unread_suffix(self, key_id: str) -> str:
        """Return the suffix with which this partition would have a key of this id; empty if that is read, or no id."""
        base = intermediate_key_id(self.partition_id, system_key_id(self.service, self.product))
        suffix = key_id.removeprefix(f"{base}_")
        return suffix if suffix != key_id and key_id not in self.readable_ids and NAME.fullmatch(suffix) else ""


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
