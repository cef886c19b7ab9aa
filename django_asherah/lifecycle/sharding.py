"""Re-encryption cut into shards, each of which is one task of a queue."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from django_asherah.lifecycle.columns import encrypted_columns
from django_asherah.lifecycle.reencryption import Options, reencrypt

logger = logging.getLogger("django_asherah")


def split(
    names: Iterable[str] = (), *, shards: int, alias: str | None = None, options: Options | None = None
) -> list[dict[str, Any]]:
    """Return the arguments of :func:`run_shard` for each of ``shards`` shards, as JSON can hold them.

    Args:
        names: as for :func:`~django_asherah.lifecycle.reencrypt`.
        shards: how many.
        alias: as there.
        options: as there; the rate is that of all shards together.

    Raises:
        UnknownColumnError: a name is not one of an encrypted column.
    """
    names, options = list(names), options or Options()
    encrypted_columns(names, alias)  # A wrong name must fail here, not in a worker.
    common = {
        "names": names,
        "alias": alias,
        "all": options.all,
        "moved": options.moved,
        "rate": options.rate / shards if options.rate else None,
        "batch": options.batch,
        "shards": shards,
    }
    return [common | {"shard": shard} for shard in range(shards)]


def run_shard(*, names: list[str], alias: str | None, **options: Any) -> dict[str, int]:
    """Re-encrypt one shard; return how many values were ``rewritten``, ``current`` and ``bad``.

    Safe to run twice, also at the same time: what one has done, the other passes over.

    Raises:
        KMSError, MetastoreError: the newest key can't be loaded or made.
    """
    report = reencrypt(names, alias=alias, options=Options(**options))
    counts = {
        "rewritten": report.rewritten.total(),
        "current": report.current.total(),
        "bad": report.bad.total,
    }
    level = logging.WARNING if report.bad.total else logging.INFO
    text = ", ".join(f"{count} {name}" for name, count in counts.items())
    logger.log(level, "re-encrypted shard %d of %d: %s", options["shard"] + 1, options["shards"], text)
    return counts
