"""uWSGI forks its workers without a word to Python: with keys and clients opened in its master."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest

from django_asherah.kms.aws import AwsKMS
from django_asherah.metastores.dynamodb import DynamoDBMetastore
from tests.databases import VENDOR
from tests.faults.processes import environment, on_aws
from tests.faults.proxy import Proxies
from tests.faults.test_servers import ask, running, wait_for
from tests.moto_servers import ACCESS, MotoRegion, dynamodb_table, free_port

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

WORKERS = 4
REQUESTS = 48
LEFT_OPEN = "leaving connections open"


@pytest.fixture
def proxies(west: MotoRegion, east: MotoRegion) -> Iterator[Proxies]:
    """Two regions, which keep connections open."""
    proxies = Proxies([west, east], keep_alive=True)
    yield proxies
    proxies.close()


@pytest.fixture
def table(west: MotoRegion) -> Iterator[DynamoDBMetastore]:
    """The key table, in the region that is preferred."""
    with dynamodb_table(west):
        yield DynamoDBMetastore(region=west.region, endpoint_url=west.url, session=boto3.Session(**ACCESS))


def uwsgi(port: int) -> list[str]:
    """Return the command that serves from forked workers, whose master has imported the application."""
    options = {"module": "tests.faults.site:wsgi", "http-socket": f"127.0.0.1:{port}", "processes": str(WORKERS)}
    flags = ["--master", "--need-app", "--die-on-term", "--disable-logging"]
    return ["tests.faults.uwsgi", *flags, *(word for name, value in options.items() for word in (f"--{name}", value))]


def test_workers_share_no_connection_to_kms_or_dynamodb(
    west: MotoRegion, east: MotoRegion, proxies: Proxies, table: DynamoDBMetastore
) -> None:
    """A worker that got another's answer would store another's KEK, or read another's key."""
    port = free_port()
    at = {"region": west.region, "endpoint_url": proxies.urls[west.region]}
    asherah = on_aws(proxies, METASTORE="dynamodb", METASTORE_OPTIONS=at)

    def make_keys(number: int) -> dict[str, Any]:
        return ask(port, f"new-keys?service=service-{number}&text=text-{number}")

    with running(*uwsgi(port), env=environment("default", asherah, FAULTS_PRELOAD="1")) as server:
        wait_for(port, server)
        with ThreadPoolExecutor(2 * WORKERS) as pool:
            answers = list(pool.map(make_keys, range(REQUESTS)))

    assert [answer["text"] for answer in answers] == [f"text-{number}" for number in range(REQUESTS)]
    assert len({answer["pid"] for answer in answers}) == WORKERS
    kms = AwsKMS(
        asherah["REGIONS"],
        west.region,
        endpoint_urls=asherah["KMS_OPTIONS"]["endpoint_urls"],
        session=boto3.Session(**ACCESS),
    )
    for number in range(REQUESTS):
        (row,) = table.versions(f"_SK_service-{number}_tests")
        wrapped = row.record().key
        assert kms.decrypt_key_in(west.region, wrapped) == kms.decrypt_key_in(east.region, wrapped)


@pytest.mark.skipif(VENDOR == "sqlite", reason="SQLite has no server, and no sessions")
def test_workers_share_no_database_connection_that_opened_the_keys(proxies: Proxies) -> None:
    port, env = free_port(), environment("default", on_aws(proxies), FAULTS_PRELOAD=LEFT_OPEN)
    env["DATABASE_URL"] += "?conn_max_age=600"  # With 0, Django itself would close what a worker has inherited.
    with running(*uwsgi(port), env=env) as server:
        wait_for(port, server)
        with ThreadPoolExecutor(2 * WORKERS) as pool:
            numbers = range(REQUESTS)
            answers = list(pool.map(lambda number: ask(port, f"database-session?text=text-{number}"), numbers))

    assert [answer["text"] for answer in answers] == [f"text-{number}" for number in numbers]
    sessions = {(answer["pid"], answer["session"]) for answer in answers}
    assert len(sessions) == len({pid for pid, _ in sessions}) == len({session for _, session in sessions}) == WORKERS
