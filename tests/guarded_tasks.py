"""A Celery app whose tasks tell the partition guard that they run under.

Its broker is in memory, or the real one at ``TEST_BROKER_URL``, with the queue ``TEST_QUEUE``.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, chain, group

from django_asherah.audit import actor
from django_asherah.celery import carry_partition_guard
from django_asherah.guard import allowed_partitions, partition_guard

app = Celery("guarded", broker=os.environ.get("TEST_BROKER_URL", "memory://"), set_as_current=False, fixups=set())
app.conf.update(
    result_backend="rpc://" if "TEST_BROKER_URL" in os.environ else "cache+memory://",
    task_default_queue=os.environ.get("TEST_QUEUE", "guarded"),
    broker_connection_retry_on_startup=False,
    broker_transport_options={"polling_interval": 0.01} if "TEST_BROKER_URL" not in os.environ else {},
    worker_hijack_root_logger=False,
)
carry_partition_guard()


@app.task
def look(*before: str) -> str:
    """Return what was seen before, and the partitions of the guard that is active here; "-" if none is."""
    allowed = allowed_partitions.get()
    return " then ".join([*before, "-" if allowed is None else ",".join(sorted(allowed))])


@app.task
def say_actor() -> str:
    """Return who an audit line would name."""
    return actor()


@app.task
def fail() -> None:
    """Fail."""
    raise ZeroDivisionError


@app.task(bind=True, max_retries=2)
def look_at_last(self: Any) -> str:
    """Retry twice, each time inside of a guard of the task's own, then look."""
    with partition_guard("clinic-7"):
        if self.request.retries < 2:
            raise self.retry(countdown=0)
    return str(look())


@app.task(bind=True)
def look_in_place(self: Any) -> str:
    """Have another task look in place of this one, from inside of a guard of the task's own."""
    with partition_guard("clinic-7"):
        raise self.replace(look.s())


@app.task
def send_narrowed() -> str:
    """Send a task from inside of a narrower guard; return its id."""
    with partition_guard("clinic-7"):
        return str(look.delay().id)


def send_all() -> dict[str, Any]:
    """Send tasks of every kind with a guard of clinic-7 and default, then without one; return what they saw."""
    with partition_guard("default", "clinic-7"):
        guarded = _send()
    return {"with a guard": guarded, "without": _send()}


def _send() -> dict[str, Any]:
    failed = fail.delay()
    sent = {
        "task": look.delay(),
        "retry": look_at_last.delay(),
        "chain": chain(look.s(), look.s(), look.s()).delay(),
        "group": group(look.s(), look.s()).delay(),
        "by name": app.send_task(look.name),
    }
    failed.get(timeout=60, interval=0.01, propagate=False)
    return {name: result.get(timeout=60, interval=0.01) for name, result in sent.items()}
