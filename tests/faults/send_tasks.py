"""Send tasks to a Celery worker and print their results as JSON: every other one forgets its keys and asks the KMS.

Run as ``python -m tests.faults.send_tasks COUNT``; with a second word ``warm``, none of them forgets any.
"""

from __future__ import annotations

import json
import sys

from celery import group

from tests.faults.site import celery, note_task


def main(count: int, *, forgetting: bool) -> None:
    """Send, wait, print, and take the queue away."""
    tasks = group(note_task.s(f"text-{number}", cold=forgetting and bool(number % 2)) for number in range(count))
    try:
        print(json.dumps(tasks.apply_async().get(timeout=240)))
    finally:
        with celery.connection_for_write() as connection:
            connection.default_channel.queue_delete(celery.conf.task_default_queue)


if __name__ == "__main__":
    main(int(sys.argv[1]), forgetting="warm" not in sys.argv[2:])
