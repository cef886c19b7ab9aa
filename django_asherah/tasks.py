"""Re-encryption as Celery tasks. Celery's ``autodiscover_tasks()`` finds this module; nothing else imports it."""

from __future__ import annotations

from typing import Any

from celery import shared_task
from django.db import InterfaceError, OperationalError
from kombu.exceptions import OperationalError as BrokerFailure

from django_asherah.audit import acting_as
from django_asherah.exceptions import AsherahError
from django_asherah.lifecycle import run_shard


@shared_task(  # type: ignore[untyped-decorator]
    bind=True,
    name="django_asherah.reencrypt_shard",
    # Acknowledged when it is done: if a worker dies, the broker gives its shard to another one.
    acks_late=True,
    reject_on_worker_lost=True,
    autoretry_for=(AsherahError, OperationalError, InterfaceError),
    retry_backoff=5,
    retry_backoff_max=600,
    max_retries=20,
)
def reencrypt_shard(self: Any, **arguments: Any) -> dict[str, int]:
    """Re-encrypt one shard; retried when the KMS, the key table or the database fails."""
    with acting_as(f"celery:{self.request.id}"):
        return run_shard(**arguments)


def enqueue(shards: list[dict[str, Any]]) -> list[str]:
    """Send a task for each shard to the broker; return their ids.

    Raises:
        ConnectionError: the broker does not accept them.
    """
    ids: list[str] = []
    try:
        for arguments in shards:
            ids.append(reencrypt_shard.delay(**arguments).id)  # noqa: PERF401 - the error says how many were sent
    except BrokerFailure as exc:
        raise ConnectionError(f"the broker accepted {len(ids)} of {len(shards)} shards: {exc}") from exc
    return ids
