"""Real servers: workers that are forked from a parent with opened keys, threads, an event loop, a task queue."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from pytest_django import Settings

from django_asherah import lifecycle
from tests.databases import ROOT, VENDOR, as_asherah, wait_until
from tests.faults.processes import environment, on_aws
from tests.faults.proxy import Proxies
from tests.moto_servers import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(VENDOR == "sqlite", reason="SQLite lets one process write at a time"),
]

REQUESTS = 60
WEST = "us-west-2"
OPENED = {"FAULTS_PRELOAD": "1"}


@pytest.fixture
def env(proxies: Proxies) -> dict[str, str]:
    return environment("default", on_aws(proxies))


@contextmanager
def running(*command: str, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run a server for the length of the block; what it said is printed if the block fails."""
    with subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        try:
            yield server
        finally:
            server.terminate()
            print(server.communicate(timeout=60)[0])


def wait_for(port: int, server: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        try:
            server.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        break
    raise AssertionError("the server does not listen")


def ask(port: int, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=60) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def ask_many(port: int, path: str) -> list[dict[str, Any]]:
    """Ask from several clients at once; every answer must hold what its request wrote."""

    def one(number: int) -> dict[str, Any]:
        answer = ask(port, f"{path}text=text-{number}")
        assert answer["text"] == f"text-{number}"
        return answer

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, range(REQUESTS)))


def test_gunicorn_with_preloaded_keys_and_threads(env: dict[str, str], proxies: Proxies) -> None:
    port = free_port()
    command = ["gunicorn", "tests.faults.site:wsgi", "--preload", "--workers", "2", "--threads", "4"]
    with running(*command, "--bind", f"127.0.0.1:{port}", env=env | OPENED) as server:
        wait_for(port, server)
        assert proxies.taken_counts()[WEST]["GenerateDataKey"] == 1

        warm = ask_many(port, "note?")
        assert proxies.taken_counts() == {}

        cold = ask_many(port, "note?cold=1&")
        counts = proxies.taken_counts()

    assert {answer["parent"] for answer in warm + cold} == {server.pid}
    assert len({answer["pid"] for answer in warm + cold}) == 2
    assert len({answer["pk"] for answer in warm + cold}) == 2 * REQUESTS
    assert {region: list(actions) for region, actions in counts.items()} == {WEST: ["Decrypt"]}


def test_uvicorn_with_async_views(env: dict[str, str], proxies: Proxies) -> None:
    port = free_port()
    with running(
        "uvicorn", "tests.faults.site:asgi", "--port", str(port), "--lifespan", "off", env=env | OPENED
    ) as server:
        wait_for(port, server)
        proxies.taken_counts()

        answers = ask_many(port, "async-note?")
        assert proxies.taken_counts() == {}

        answers += ask_many(port, "async-note?cold=1&")
        assert list(proxies.taken_counts()) == [WEST]

    assert len({answer["pk"] for answer in answers}) == 2 * REQUESTS
    assert {answer["pid"] for answer in answers} == {server.pid}


def test_uvicorn_seals_in_its_loop_through_every_check_and_notices_a_revocation(
    env: dict[str, str], proxies: Proxies, settings: Settings
) -> None:
    port = free_port()
    settings.ASHERAH = as_asherah(**on_aws(proxies))
    command = ["uvicorn", "tests.faults.site:asgi", "--port", str(port), "--lifespan", "off"]
    with running(*command, env=env | OPENED) as server:
        wait_for(port, server)
        (created,) = {answer["created"] for answer in ask_many(port, "seal?")}
        lifecycle.revoke("_IK_default_suite_tests", created)
        wait_until(lambda: ask(port, "seal?text=x")["created"] > created)
        ask_many(port, "seal?")


@pytest.fixture
def broker() -> str:
    """RabbitMQ, without which these tests can't be: said aloud, and in CI a failure."""
    from kombu import Connection

    url = os.environ.get("TEST_BROKER_URL", "amqp://guest:guest@127.0.0.1:5672//")
    try:
        Connection(url, connect_timeout=5).ensure_connection(max_retries=1).close()
    except Exception as exc:
        reason = f"RabbitMQ does not answer ({type(exc).__name__}: {exc})"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return url


def test_celery_prefork_workers_with_preloaded_keys(env: dict[str, str], proxies: Proxies, broker: str) -> None:
    queue = f"faults-{uuid.uuid4()}"
    env |= {"TEST_BROKER_URL": broker, "FAULTS_QUEUE": queue}
    command = ["celery", "-A", "tests.faults.site:celery", "worker", "--pool", "prefork", "--concurrency", "2"]
    with running(*command, "--without-gossip", "--without-mingle", env=env) as worker:
        answers = json.loads(
            subprocess.run(
                [sys.executable, "-m", "tests.faults.send_tasks", str(REQUESTS)],
                cwd=ROOT,
                env=env,
                capture_output=True,
                text=True,
                timeout=300,
                check=True,
            ).stdout
        )

    assert [answer["text"] for answer in answers] == [f"text-{number}" for number in range(REQUESTS)]
    assert {answer["parent"] for answer in answers} == {worker.pid}
    assert len({answer["pid"] for answer in answers}) == 2
    counts = proxies.taken_counts()[WEST]
    assert counts.pop("GenerateDataKey") == 1
    assert list(counts) == ["Decrypt"]
