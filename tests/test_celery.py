"""carry_partition_guard: a Celery task runs under the guard that it was sent under."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from celery.contrib.testing.worker import start_worker
from celery.signals import setup_logging

from django_asherah.audit import acting_as, actor
from django_asherah.celery import HEADER, carry_partition_guard
from django_asherah.exceptions import PartitionMismatchError
from django_asherah.guard import allowed_partitions, partition_guard
from tests import guarded_tasks
from tests.brokers import BROKER, own_queue
from tests.databases import ROOT
from tests.guarded_tasks import app, look, look_at_last, look_in_place, say_actor, send_narrowed


def seen_by_all(task: str) -> dict[str, Any]:
    return {
        "task": task,
        "retry": task,
        "chain": f"{task} then {task} then {task}",
        "group": [task, task],
        "by name": task,
    }


EXPECTED = {"with a guard": seen_by_all("clinic-7,default"), "without": seen_by_all("-")}


@pytest.fixture(scope="module")
def worker() -> Iterator[None]:
    """A worker in a thread of this process, on a broker in its memory."""

    def leave_logging(**_: Any) -> None:
        """Keep Celery from setting the root logger's level, which later tests of warnings need."""

    setup_logging.connect(leave_logging)
    with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=30):
        yield
    setup_logging.disconnect(leave_logging)


@pytest.mark.slow  # Stopping the worker takes four seconds.
@pytest.mark.usefixtures("worker")
class TestWorker:
    def test_tasks_retries_and_chains_run_under_the_guard_of_their_sender(self) -> None:
        carry_partition_guard()  # Once more, which changes nothing.
        assert guarded_tasks.send_all() == EXPECTED

    def test_what_replaces_a_task_runs_under_its_guard(self) -> None:
        with partition_guard("clinic-7", "default"):
            result = look_in_place.delay()
        assert result.get(timeout=60, interval=0.01) == "clinic-7,default"

    def test_a_task_that_is_sent_from_a_narrower_guard_has_that_one(self) -> None:
        with partition_guard("clinic-7", "default"):
            id = send_narrowed.delay().get(timeout=60, interval=0.01)
        assert app.AsyncResult(id).get(timeout=60, interval=0.01) == "clinic-7"

    @pytest.mark.parametrize("header", ["clinic-7", 7, ["clinic-7", 7], {"clinic-7": 1}, ""])
    def test_a_header_that_is_no_list_of_partitions_allows_none(self, header: Any) -> None:
        assert look.apply_async(headers={HEADER: header}).get(timeout=60, interval=0.01) == ""
        assert look.delay().get(timeout=60, interval=0.01) == "-"

    def test_a_guard_of_nothing_is_carried(self) -> None:
        with partition_guard():
            result = look.delay()
        assert result.get(timeout=60, interval=0.01) == ""

    def test_a_header_of_the_senders_own_is_replaced_by_the_guards(self) -> None:
        with partition_guard("clinic-7"):
            result = look.apply_async(headers={HEADER: ["clinic-8"], "other": "kept"})
        assert result.get(timeout=60, interval=0.01) == "clinic-7"

    def test_what_a_task_does_is_its_own_deed(self) -> None:
        result = say_actor.delay()
        assert result.get(timeout=60, interval=0.01) == f"celery:{result.id}"


class TestEager:
    @pytest.fixture(autouse=True)
    def _eager(self) -> Iterator[None]:
        app.conf.task_always_eager = True
        yield
        app.conf.task_always_eager = False

    def test_a_task_runs_under_the_guard_around_its_call(self) -> None:
        with partition_guard("clinic-7", "default"):
            assert look.delay().get() == "clinic-7,default"
            assert (look.s() | look.s()).delay().get() == "clinic-7,default then clinic-7,default"
            assert allowed_partitions.get() == {"clinic-7", "default"}
        assert look.delay().get() == "-"

    def test_an_eager_task_acts_as_itself_and_its_caller_as_before(self) -> None:
        with acting_as("admin:alice#7"):
            result = say_actor.delay()
            assert result.get() == f"celery:{result.id}"
            assert actor() == "admin:alice#7"

    def test_so_does_a_retry(self) -> None:
        with partition_guard("clinic-7", "default"):
            assert look_at_last.delay().get() == "clinic-7,default"
            assert allowed_partitions.get() == {"clinic-7", "default"}

    def test_a_header_neither_narrows_nor_widens_it(self) -> None:
        with partition_guard("clinic-7"):
            assert look.apply_async(headers={HEADER: ["clinic-8"]}).get() == "clinic-7"

    def test_a_widening_guard_in_a_task_is_refused(self) -> None:
        with partition_guard("default"), pytest.raises(PartitionMismatchError, match="may only narrow"):
            look_at_last.delay().get()


@pytest.fixture
def queue() -> Iterator[str]:
    with own_queue() as name:
        yield name


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_the_same_with_a_real_broker_and_workers(queue: str, pool: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TEST_BROKER_URL": BROKER, "TEST_QUEUE": queue}
    worker = subprocess.Popen(
        [
            *(sys.executable, "-m", "celery", "-A", "tests.guarded_tasks:app", "worker", "--pool", pool),
            *("--concurrency", "2", "--without-gossip", "--without-mingle", "--loglevel", "CRITICAL"),
            *("--hostname", f"{uuid.uuid4().hex}@test"),
        ],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        code = "import json; from tests.guarded_tasks import send_all; print(json.dumps(send_all()))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    finally:
        worker.terminate()
        worker.wait(timeout=60)
    assert json.loads(done.stdout) == EXPECTED
