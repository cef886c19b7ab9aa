"""Celery workers with the commands that the page shows: every result is right, and each process asks the KMS once."""

from __future__ import annotations

import json
import uuid

import pytest

from tests.deploy.servers import command_of, running
from tests.faults.processes import run_module
from tests.faults.proxy import Proxies
from tests.faults.test_servers import WEST

TASKS = 40


@pytest.mark.parametrize(
    ("file", "processes"),
    [("celery_prefork.sh", 2), ("celery_threads.sh", 1), ("celery_gevent.sh", 1), ("celery_solo.sh", 1)],
)
def test_each_process_asks_the_kms_once(
    file: str, processes: int, env: dict[str, str], proxies: Proxies, broker: str
) -> None:
    env |= {"TEST_BROKER_URL": broker, "FAULTS_QUEUE": f"deploy-{uuid.uuid4()}"}
    with running(command_of(file), env):
        answers = json.loads(run_module("send_tasks", str(TASKS), "warm", env=env))

    assert [answer["text"] for answer in answers] == [f"text-{number}" for number in range(TASKS)]
    workers = {answer["pid"] for answer in answers}
    assert len(workers) <= processes
    assert proxies.taken_counts() == {WEST: {"Decrypt": len(workers)}}
