"""The partition guard of whoever sends a Celery task holds in the worker, too, and audit lines name the task.

Nothing else imports this module.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from celery import current_task, signals

from django_asherah.audit import acting_as
from django_asherah.guard import allowed_partitions, partition_guard

HEADER = "asherah_partition_guard"
"""The message header that lists the partitions. Its name stays: messages wait in queues through a deployment."""

_ENTERED = "_asherah_entered"


def carry_partition_guard() -> None:
    """From now on, run each task under the partition guard that it was sent under; without one if there was none.

    Call it once, in processes that send tasks and in workers alike: where the Celery app is made. A retry runs under
    its task's own guard, and a callback or the next task of a chain under that of the task before it. An eager task is
    a call like any other. What a task does to keys and data is logged as done by ``celery:`` and the task's id.
    """
    signals.before_task_publish.connect(_send_guard, dispatch_uid="django_asherah.celery")
    signals.task_prerun.connect(_enter, dispatch_uid="django_asherah.celery")
    signals.task_postrun.connect(_exit, dispatch_uid="django_asherah.celery")


def _send_guard(headers: dict[str, Any], **kwargs: Any) -> None:
    request = current_task.request if current_task else None
    if request is not None and request.id == headers.get("id"):
        # A retry, or what replaces the task: a guard inside of the task is not its own.
        partitions = request.get(HEADER)
    else:
        allowed = allowed_partitions.get()
        partitions = None if allowed is None else sorted(allowed)
    if partitions is not None:
        headers[HEADER] = partitions


def _enter(task: Any, **kwargs: Any) -> None:
    entered = ExitStack()
    setattr(task.request, _ENTERED, entered)
    entered.enter_context(acting_as(f"celery:{task.request.id}"))
    partitions = task.request.get(HEADER)
    if partitions is None:
        return  # An eager task, too: it is already inside of the guard around its call.
    # Celery logs what a receiver raises, and runs the task: what can't be read must be a guard that allows nothing.
    is_right = isinstance(partitions, list) and all(isinstance(partition, str) for partition in partitions)
    entered.enter_context(partition_guard(*partitions if is_right else ()))


def _exit(task: Any, **kwargs: Any) -> None:
    entered = task.request.get(_ENTERED)
    if entered is not None:
        entered.close()
