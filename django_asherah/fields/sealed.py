"""Values outside of the application's sight: as they were loaded, and on their way to the database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeAlias

from msgspec import Struct

from django_asherah.envelope.keys import CryptoKey
from django_asherah.envelope.records import KeyMeta
from django_asherah.envelope.session import Session

Keys: TypeAlias = Mapping[KeyMeta, CryptoKey]

NO_KEYS: Keys = {}


class Loaded(Struct, frozen=True, gc=False, eq=False):
    """What was found out of some records of a column when their rows were loaded.

    Attributes:
        keys: the keys that they name.
        partition: the one that their rows say; None if the field has its own, or it is not known.
        session: what opens them; None if that is to be found when one is read.
        kind: the ``record_kind`` of the field that they were loaded for.
        is_lasting: whether the rows of all the keys were certain to last.
    """

    keys: Keys = NO_KEYS
    partition: str | None = None
    session: Session | None = None
    kind: tuple[Any, ...] | None = None
    is_lasting: bool = True


def are_lasting(keys: Keys) -> bool:
    """Tell whether the rows of all these keys were certain to last when they were read."""
    return all(key.is_committed for key in keys.values())


NOT_LOADED = Loaded()
"""For a value of which nothing is known but its record."""


class SealedValue(Struct, frozen=True, gc=False, eq=False):
    """A record that was loaded: what an instance holds until its attribute is read.

    Attributes:
        record: what the database holds, as the field's column gives it.
        loaded: what is known of it. A pickle takes the partition along, and nothing else.
    """

    record: str | bytes
    loaded: Loaded = NOT_LOADED

    def __repr__(self) -> str:
        return "<SealedValue>"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return SealedValue, (self.record, Loaded(partition=self.loaded.partition))


class Literal(Struct, frozen=True, gc=False):
    """A text of the query's own, which it yielded instead of a record."""

    text: str


class PreparedValue(Struct, gc=False, eq=False):
    """What ``pre_save`` hands on: a record that is written as it is, or what is yet to be sealed.

    Nothing is sealed before the statement is written, because Django 6 asks a field twice for the value of a new row.

    Attributes:
        record: the record, if there is one already.
        payload: what is to be sealed otherwise.
        partition: the row's, if it is the row that says it.
        is_new: whether the row is a new one, perhaps among many.
        origin: the database that the record stands in already.
        key: what is to seal it; the partition's newest if None.
    """

    record: str | bytes | None = None
    payload: bytes = b""
    partition: str | None = None
    is_new: bool = False
    origin: str | None = None
    key: CryptoKey | None = None

    def __repr__(self) -> str:
        return "<PreparedValue>"
