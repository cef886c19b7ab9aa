"""A check of the key ids of several services in one key table."""

from __future__ import annotations

from collections.abc import Iterator

from django.core.checks import CheckMessage
from django.core.checks import Warning as CheckWarning
from django.db.backends.base.base import BaseDatabaseWrapper

from django_asherah.conf import Settings
from django_asherah.envelope.partition import KeyKind, may_collide, readable_system_ids
from django_asherah.envelope.records import printable

_SYSTEM_KEYS = "SELECT DISTINCT id FROM encryption_key WHERE SUBSTR(id, 1, %s) = %s ORDER BY id"


def check_collisions(connection: BaseDatabaseWrapper, place: str, settings: Settings) -> Iterator[CheckMessage]:
    """Report other services in the key table whose partitions can have keys of the same ids as those of this one."""
    ours = readable_system_ids(settings.service, settings.product, settings.key_suffix, settings.read_suffixes)
    prefix = KeyKind.SYSTEM.prefix
    with connection.cursor() as cursor:
        cursor.execute(_SYSTEM_KEYS, [len(prefix), prefix])
        others = [key_id for (key_id,) in cursor.fetchall() if key_id not in ours]
    for other in others:
        like = [system_id for system_id in ours if may_collide(system_id, other)]
        if like:
            yield CheckWarning(
                f"{place} holds keys under system key {printable(other)} of another service or product, whose "
                f"partitions' key ids can be the same as those under {like[0]}.",
                hint="Neither reads the other's values. Give one of them a key table of its own, or another name; "
                "silence this if none of their partitions' names goes on as the other's service does.",
                id="asherah.W002",
            )
