"""The suite's settings in a project that has Celery: its app, on a queue that one test has to itself."""

from __future__ import annotations

from celery import Celery

from tests.settings import *  # noqa: F403
from tests.settings import env

app = Celery("tests")
app.conf.update(
    broker_url=env("TEST_BROKER_URL", default="amqp://guest:guest@127.0.0.1:5672//"),
    task_default_queue=env("TEST_QUEUE", default="asherah"),
    worker_hijack_root_logger=False,
)
app.set_default()
app.autodiscover_tasks()
