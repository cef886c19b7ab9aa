"""The partition guard of whoever sends a Celery task holds in the worker, too. Nothing else imports this module."""

from __future__ import annotations

from typing import Any

from celery import current_task, signals

from django_asherah.guard import allowed_partitions, partition_guard

HEADER = "asherah_partition_guard"
"""The message header that lists the partitions. Its name stays: messages wait in queues through a deployment."""

_ENTERED = "_asherah_entered_guard"


def carry_partition_guard() -> None:
    """From now on, run each task under the partition guard that it was sent under; without one if there was none.

    Call it once, in processes that send tasks and in workers alike: where the Celery app is made. A retry runs under
    its task's own guard, and a callback or the next task of a chain under that of the task before it. An eager task is
    a call like any other.
    """
    signals.before_task_publish.connect(_send_guard, dispatch_uid="django_asherah.celery")
    signals.task_prerun.connect(_enter_guard, dispatch_uid="django_asherah.celery")
    signals.task_postrun.connect(_exit_guard, dispatch_uid="django_asherah.celery")


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


def _enter_guard(task: Any, **kwargs: Any) -> None:
    partitions = task.request.get(HEADER)
    if partitions is None:
        return  # An eager task, too: it is already inside of the guard around its call.
    # Celery logs what a receiver raises, and runs the task: what can't be read must be a guard that allows nothing.
    is_right = isinstance(partitions, list) and all(isinstance(partition, str) for partition in partitions)
    guard = partition_guard(*partitions if is_right else ())
    guard.__enter__()
    setattr(task.request, _ENTERED, guard)


def _exit_guard(task: Any, **kwargs: Any) -> None:
    guard = task.request.get(_ENTERED)
    if guard is not None:
        guard.__exit__(None, None, None)
