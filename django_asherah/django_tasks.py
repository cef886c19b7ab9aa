"""Re-encryption as tasks of Django's own framework (``django.tasks``, Django 6.0 and newer)."""

from __future__ import annotations

from typing import Any

from django.tasks import TaskContext, task

from django_asherah.audit import acting_as
from django_asherah.lifecycle import run_shard


@task(takes_context=True)
def reencrypt_shard(context: TaskContext[Any, Any], arguments: dict[str, Any]) -> dict[str, int]:
    """Re-encrypt one shard."""
    with acting_as(f"task:{context.task_result.id}"):
        return run_shard(**arguments)


def enqueue(shards: list[dict[str, Any]]) -> list[str]:
    """Give a task for each shard to the default backend of ``settings.TASKS``; return their ids."""
    return [reencrypt_shard.enqueue(arguments).id for arguments in shards]
