"""Re-encryption through task queues: Celery on a real broker, and Django's own framework."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import django
import pytest
from django.core.management.base import CommandError
from django.db import OperationalError
from kombu import Connection
from pytest_django import Settings

from django_asherah import engine, lifecycle, signals
from django_asherah.envelope.records import decode_row
from django_asherah.exceptions import KMSError
from django_asherah.lifecycle.reencryption import Options
from django_asherah.tasks import reencrypt_shard
from django_asherah.testing import FakeKMS
from tests.brokers import BROKER, own_queue
from tests.databases import ROOT, as_asherah, execute, run_django, url_of
from tests.lifecycle.conftest import Run
from tests.lifecycle.processes import environment, manage
from tests.testapp.models import Note

pytestmark = pytest.mark.django_db(transaction=True)

ROWS = 120


@pytest.fixture
def queue() -> Iterator[str]:
    with own_queue() as name:
        yield name


@pytest.fixture
def aged(shared_alias: str, settings: Settings) -> str:
    """A database that workers can open, with values that are not under the newest key."""
    settings.ASHERAH = as_asherah(DATABASE=shared_alias)
    Note.objects.using(shared_alias).bulk_create(Note(body=f"text {number}") for number in range(ROWS))
    execute(shared_alias, "UPDATE testapp_note SET other_body = body")
    lifecycle.rotate()
    engine.reset()
    return shared_alias


def under_newest_key(alias: str) -> int:
    newest = engine.get_factory().intermediate_keys.current("_IK_default_suite_tests").meta
    rows = execute(alias, "SELECT body FROM testapp_note")
    return sum(decode_row(text).key.parent_key_meta == newest for (text,) in rows)


def until(condition: Callable[[], bool]) -> None:
    """Look again until ``condition`` holds; fail after a minute."""
    pause = threading.Event()
    for _ in range(600):
        with suppress(OperationalError):  # A worker has the SQLite file just now.
            if condition():
                return
        pause.wait(0.1)
    raise AssertionError("it did not come true within a minute")


class Worker:
    """A Celery worker with two processes."""

    def __init__(self, url: str, queue: str) -> None:
        variables = {"DJANGO_SETTINGS_MODULE": "tests.celery_settings", "TEST_QUEUE": queue, "PYTHONWARNINGS": ""}
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "celery", "-A", "tests.celery_app", "worker", "--pool", "prefork"),
                *("--concurrency", "2", "--without-gossip", "--without-mingle", "--loglevel", "WARNING"),
                *("--hostname", f"{uuid.uuid4().hex}@test"),
            ],
            cwd=ROOT,
            env=environment(url, **variables),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def kill(self) -> None:
        """End it and its children at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Let it finish what it has begun."""
        self.process.terminate()
        self.process.wait(timeout=60)


@pytest.fixture
def start_worker() -> Iterator[Callable[[str, str], Worker]]:
    workers: list[Worker] = []

    def start(url: str, queue: str) -> Worker:
        workers.append(Worker(url, queue))
        return workers[-1]

    yield start
    for worker in workers:
        if worker.process.poll() is None:
            worker.kill()


@pytest.mark.slow
def test_a_worker_killed_midway_loses_nothing(
    aged: str, queue: str, start_worker: Callable[[str, str], Worker]
) -> None:
    done = manage(
        url_of(aged),
        *("asherah_reencrypt", "testapp.Note.body", "--enqueue", "--shards", "3", "--rate", "60", "--batch", "4"),
        DJANGO_SETTINGS_MODULE="tests.celery_settings",
        TEST_QUEUE=queue,
        PYTHONWARNINGS="",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Enqueued 3 tasks.")
    assert under_newest_key(aged) == 0

    doomed = start_worker(url_of(aged), queue)
    until(lambda: under_newest_key(aged) >= 8)
    doomed.kill()
    assert under_newest_key(aged) < ROWS

    heir = start_worker(url_of(aged), queue)
    until(lambda: under_newest_key(aged) == ROWS)
    heir.stop()
    with Connection(BROKER) as connection:
        assert connection.default_channel.queue_declare(queue, passive=True).message_count == 0
    assert [note.body for note in Note.objects.using(aged).order_by("pk")] == [f"text {n}" for n in range(ROWS)]


@pytest.mark.slow
def test_the_task_is_given_back_by_a_worker_that_dies_and_tried_again_when_keys_fail() -> None:
    code = (
        "from django_asherah.tasks import reencrypt_shard as task\n"
        "from django_asherah.exceptions import KMSError\n"
        "assert task.acks_late and task.reject_on_worker_lost\n"
        "assert any(issubclass(KMSError, kind) for kind in task.autoretry_for)\n"
        "assert task.name == 'django_asherah.reencrypt_shard'\n"
    )
    run_django(code, "sqlite://:memory:", PYTHONWARNINGS="")


def test_shards_leave_a_workers_keys_alone_and_open_each_system_key_once(shared_alias: str, settings: Settings) -> None:
    """A worker that does shards between its other tasks asks the KMS for these as often as without shards."""
    kms = FakeKMS("us-west-2")
    settings.ASHERAH = as_asherah(DATABASE=shared_alias, **kms.settings)
    for number in range(3):
        Note.objects.using(shared_alias).bulk_create(Note(body=f"text {number}") for _ in range(40))
        lifecycle.rotate()
    engine.reset()

    def other_task() -> None:
        Note.objects.using(shared_alias).create(body="text")
        assert len({note.body for note in Note.objects.using(shared_alias)}) == 4

    other_task()
    opened = Counter({("us-west-2", "Decrypt"): 4})  # As many system keys as the rows are under.
    kms.calls.clear()
    rewritten = 0
    for shard in lifecycle.split(["testapp.Note.body"], alias=shared_alias, shards=4):
        rewritten += reencrypt_shard.apply(kwargs=shard).get()["rewritten"]
        assert kms.calls == opened
        kms.calls.clear()
        other_task()
        assert kms.calls == {}
        lifecycle.verify_data(["testapp.Note.body"], alias=shared_alias)
        kms.calls.clear()
        other_task()
        assert kms.calls == {}
    assert rewritten == 120


@pytest.mark.slow
def test_a_task_does_its_shard_and_returns_its_counts(aged: str) -> None:
    code = (
        "from tests.celery_settings import app\n"
        "app.conf.update(task_always_eager=True, task_store_eager_result=True, result_backend='cache+memory://')\n"
        "from celery.result import AsyncResult\n"
        "from django_asherah import lifecycle, tasks\n"
        "from django_asherah.signals import data_reencrypted\n"
        "told = []\n"
        "def hear(**details): told.append(details)\n"
        "data_reencrypted.connect(hear)\n"
        "ids = tasks.enqueue(lifecycle.split(['testapp.Note.body'], shards=3))\n"
        "counts = [AsyncResult(id).get()['rewritten'] for id in ids]\n"
        "print(__import__('json').dumps([ids, counts, [t['by'] for t in told], [t['shard'] for t in told]]))\n"
    )
    done = run_django(code, url_of(aged), DJANGO_SETTINGS_MODULE="tests.celery_settings", PYTHONWARNINGS="")
    ids, counts, actors, shards = json.loads(done)
    assert (len(counts), sum(counts)) == (3, ROWS)
    assert [f"celery:{id}" for id in ids] == actors
    assert shards == ["1/3", "2/3", "3/3"]
    assert under_newest_key(aged) == ROWS


@pytest.mark.slow
def test_a_broker_that_is_not_there_is_a_problem_and_no_traceback() -> None:
    done = manage(
        "sqlite://:memory:",
        *("asherah_reencrypt", "--enqueue"),
        DJANGO_SETTINGS_MODULE="tests.celery_settings",
        TEST_BROKER_URL="amqp://guest:guest@127.0.0.1:1//",
        PYTHONWARNINGS="",
    )
    assert done.returncode == 1
    assert done.stderr.startswith("ConnectionError: the broker accepted 0 of 4 shards: ")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_installing_the_app_and_running_commands_imports_no_celery() -> None:
    code = (
        "from django.core.management import call_command, load_command_class\n"
        "call_command('makemigrations', check_changes=True, dry_run=True, verbosity=0)\n"
        "load_command_class('django_asherah', 'asherah_reencrypt').create_parser('', '').format_help()\n"
        "import django_asherah.lifecycle, django_asherah.fields\n"
        "print(sorted({'celery', 'kombu'} & sys.modules.keys()))\n"
    )
    assert run_django(code, "sqlite://:memory:") == "[]"


class TestSplit:
    def test_the_shards_cover_every_row_and_share_the_rate(self) -> None:
        Note.objects.bulk_create(Note(body=str(number)) for number in range(50))
        lifecycle.rotate()
        shards = lifecycle.split(["testapp.Note.body"], shards=3, options=Options(rate=3e6))
        assert [shard["rate"] for shard in shards] == [1e6] * 3
        counts = [lifecycle.run_shard(**shard) for shard in shards]
        assert sum(count["rewritten"] for count in counts) == 50
        assert lifecycle.run_shard(**shards[0]) == {"rewritten": 0, "current": counts[0]["rewritten"], "bad": 0}

    def test_a_wrong_name_fails_before_anything_is_sent(self) -> None:
        with pytest.raises(lifecycle.UnknownColumnError):
            lifecycle.split(["testapp.Nobody"], shards=2)

    def test_bad_values_are_counted_and_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        Note.objects.create(body="x", other_body="")
        execute("default", "UPDATE testapp_note SET body = 'damaged'")
        (shard,) = lifecycle.split(["testapp.Note"], shards=1)
        assert lifecycle.run_shard(**shard)["bad"] == 1
        lines = [line.getMessage() for line in caplog.records if line.name == "django_asherah"]
        assert lines == ["re-encrypted shard 1 of 1: 0 rewritten, 1 current, 1 bad"]

    def test_a_failing_kms_fails_the_shard(self, settings: Any) -> None:
        Note.objects.create(body="x")
        settings.ASHERAH = {**settings.ASHERAH, "KMS_OPTIONS": {"key": "11" * 32}}
        (shard,) = lifecycle.split(["testapp.Note"], shards=1)
        with pytest.raises(KMSError):
            lifecycle.run_shard(**shard)


class TestWords:
    def test_dry_run_sends_nothing(self, run: Run) -> None:
        document = run("asherah_reencrypt", "--enqueue", "--dry-run")
        assert (document["summary"], document["items"]) == ({"enqueued": 4, "via": "celery"}, [])

    @pytest.mark.parametrize("words", [("--shard", "1/2"), ("--database", "default")])
    def test_what_does_not_go_together(self, run: Run, words: tuple[str, str]) -> None:
        with pytest.raises(CommandError):
            run("asherah_reencrypt", "--enqueue", *words)

    @pytest.mark.parametrize("words", [("--rate", "0"), ("--rate", "-1"), ("--rate", "nan"), ("--shards", "0")])
    def test_what_is_no_number(self, run: Run, words: tuple[str, str]) -> None:
        with pytest.raises(CommandError):
            run("asherah_reencrypt", *words)


if django.VERSION >= (6, 0):

    def test_djangos_own_tasks_do_the_same(run: Run) -> None:
        Note.objects.bulk_create(Note(body=f"text {number}") for number in range(ROWS))
        lifecycle.rotate()
        told: list[str] = []

        def hear(by: str, **details: Any) -> None:
            told.append(by)

        signals.data_reencrypted.connect(hear)
        document = run("asherah_reencrypt", "testapp.Note.body", "--enqueue", "--via", "django", "--shards", "3")
        assert (document["code"], document["summary"]) == (0, {"enqueued": 3, "via": "django"})
        assert len({item["task"] for item in document["items"]}) == 3
        assert told == [f"task:{item['task']}" for item in document["items"]]
        assert under_newest_key("default") == ROWS

else:

    def test_an_older_django_says_what_is_needed(run: Run) -> None:
        with pytest.raises(CommandError, match=r"--via django needs Django 6\.0 or newer") as caught:
            run("asherah_reencrypt", "--enqueue", "--via", "django")
        assert caught.value.returncode == 2
