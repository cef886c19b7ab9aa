"""Web servers with the configurations that the page shows: every answer is right, and each process asks the KMS once."""

from __future__ import annotations

import pytest

from tests.databases import VENDOR
from tests.deploy.servers import command_of, running
from tests.faults.proxy import Proxies
from tests.faults.test_servers import WEST, ask_many, wait_for
from tests.moto_servers import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(VENDOR != "postgresql", reason="every shape runs on one server, PostgreSQL"),
]

WORKERS = {
    "gunicorn_sync.py": 2,
    "gunicorn_gthread.py": 2,
    "gunicorn_gevent.py": 2,
    "uwsgi_prefork.ini": 2,
    "uwsgi_threads.ini": 1,
    "uwsgi_lazy_apps.ini": 2,
    "uvicorn.sh": 2,
    "hypercorn.py": 2,
}


def serve(file: str, env: dict[str, str]) -> set[int]:
    """Start the server, ask it from eight clients at once, return the processes that answered."""
    port = free_port()
    path = "async-note?" if file in ("uvicorn.sh", "hypercorn.py") else "note?"
    with running(command_of(file), env | {"PORT": str(port)}) as server:
        wait_for(port, server)
        return {answer["pid"] for answer in ask_many(port, path)}


@pytest.mark.parametrize("file", WORKERS)
def test_each_worker_asks_the_kms_once(file: str, env: dict[str, str], proxies: Proxies) -> None:
    workers = serve(file, env)
    assert len(workers) <= WORKERS[file]
    assert proxies.taken_counts() == {WEST: {"Decrypt": len(workers)}}


def test_with_preload_the_parent_asks_for_all_workers(env: dict[str, str], proxies: Proxies) -> None:
    assert len(serve("gunicorn_preload.py", env)) <= 2
    assert proxies.taken_counts() == {WEST: {"Decrypt": 1}}
