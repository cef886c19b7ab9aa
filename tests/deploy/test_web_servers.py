"""Web servers as the page configures them: every answer is right, and each process asks the KMS once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError

import pytest

from tests.databases import run_django, wait_until
from tests.deploy.servers import command_of, running, serve
from tests.faults.processes import environment, on_aws
from tests.faults.proxy import STALLED, Proxies
from tests.faults.test_servers import WEST, ask, wait_for
from tests.moto_servers import free_port

WORKERS = {
    "gunicorn_sync.py": 2,
    "gunicorn_gthread.py": 2,
    "gunicorn_gevent.py": 2,
    "uwsgi_prefork.ini": 2,
    "uwsgi_threads.ini": 1,
    "uwsgi_lazy_apps.ini": 2,
    "uvicorn.sh": 2,
    "hypercorn_config.py": 2,
}

ASYNC = ("uvicorn.sh", "hypercorn_config.py")


@pytest.mark.parametrize("file", WORKERS)
def test_each_worker_asks_the_kms_once(file: str, env: dict[str, str], proxies: Proxies) -> None:
    workers = serve(file, env, "async-note" if file in ASYNC else "note")
    assert len(workers) <= WORKERS[file]
    assert proxies.taken_counts() == {WEST: {"Decrypt": len(workers)}}


def test_with_preload_the_parent_asks_for_all_workers(env: dict[str, str], proxies: Proxies) -> None:
    assert len(serve("gunicorn_preload.py", env)) <= 2
    assert proxies.taken_counts() == {WEST: {"Decrypt": 1}}


@pytest.mark.parametrize("file", ["gunicorn_gevent.py", "gunicorn_gthread.py", "uwsgi_threads.ini"])
def test_while_one_request_waits_for_a_stalled_region_its_worker_answers_others(
    file: str, env: dict[str, str], proxies: Proxies
) -> None:
    port = free_port()
    with running(command_of(file), env | {"PORT": str(port), "GUNICORN_CMD_ARGS": "--workers 1"}) as server:
        wait_for(port, server)
        with ThreadPoolExecutor(1) as pool:
            with proxies.broken([WEST], STALLED):
                waiting = pool.submit(ask, port, "note?text=waited")
                wait_until(lambda: bool(proxies.taken_counts()), every=0.1)
                with pytest.raises(HTTPError, match="404"):
                    ask(port, "no-such-page")
                assert not waiting.done()
            assert waiting.result(60)["text"] == "waited"


LATE = """
import boto3
from gevent import monkey

monkey.patch_all()
from django_asherah import engine
from django_asherah.exceptions import KMSError

try:
    engine.get_session().encrypt(b"x")
except KMSError as exc:
    print(exc)
"""


def test_gevent_that_patches_too_late_is_named_by_the_error(proxies: Proxies) -> None:
    env = environment("default", on_aws(proxies, METASTORE="memory"), PYTHONWARNINGS="ignore")
    said = run_django(LATE, env["DATABASE_URL"], **env)
    assert "us-west-2: ImproperlyConfigured: gevent's monkey.patch_all() was called after boto3 was imported" in said
