"""What stands between application and PostgreSQL, as the page configures it: a pooler, a pool, a replica, tenants."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.db import connections

from tests.databases import ROOT, execute
from tests.deploy.pgbouncer import pgbouncer
from tests.deploy.servers import command_of, database_variables, empty_database, running, serve
from tests.faults.proxy import Proxies
from tests.faults.test_servers import WEST, wait_for
from tests.moto_servers import free_port


@pytest.fixture
def env(env: dict[str, str]) -> dict[str, str]:
    """The same as for all, and what the fragments of settings read."""
    variables = database_variables()
    return env | variables | {"REPLICA_HOST": variables["DATABASE_HOST"]}


@pytest.mark.parametrize("size", [1, 2])
def test_pgbouncer_in_transaction_mode_with_fewer_connections_than_there_are_threads(
    env: dict[str, str], proxies: Proxies, tmp_path: Path, size: int
) -> None:
    with pgbouncer(tmp_path, size) as port:
        workers = serve(
            "gunicorn_gthread.py", env | {"DEPLOY_SETTINGS": "settings_pgbouncer.py", "PGBOUNCER_PORT": port}
        )
    assert proxies.taken_counts() == {WEST: {"Decrypt": len(workers)}}


def test_the_pool_of_psycopg(env: dict[str, str], proxies: Proxies) -> None:
    workers = serve("gunicorn_gthread.py", env | {"DEPLOY_SETTINGS": "settings_pool.py"})
    assert proxies.taken_counts() == {WEST: {"Decrypt": len(workers)}}


@pytest.fixture
def replica_user() -> Iterator[str]:
    """A user who may not write, and for whom the key table is empty: a replica that lags behind with its keys.

    It stands in for a server of its own. Notes, which the page reads right after it wrote them, don't lag.
    """
    at = connections["default"].settings_dict
    name = f"{at['NAME']}_replica"
    execute("default", "CREATE SCHEMA lagging CREATE TABLE encryption_key (LIKE public.encryption_key INCLUDING ALL)")
    execute("default", f"CREATE ROLE {name} SUPERUSER LOGIN PASSWORD '{at['PASSWORD'] or 'none'}'")
    execute("default", f"ALTER ROLE {name} SET search_path = lagging, public")
    execute("default", f"ALTER ROLE {name} SET default_transaction_read_only = on")
    yield name
    execute("default", f"DROP ROLE {name}")
    execute("default", "DROP SCHEMA lagging CASCADE")


def test_values_are_read_from_the_replica_and_keys_never(
    env: dict[str, str], proxies: Proxies, replica_user: str
) -> None:
    env |= {"DEPLOY_SETTINGS": "settings_replica.py", "REPLICA_USER": replica_user}
    workers = serve("gunicorn_gthread.py", env)
    assert proxies.taken_counts() == {WEST: {"Decrypt": len(workers)}}


TENANTS = """
from clinic.models import Clinic, Domain

for schema, host in (("north", "north.clinic.test"), ("south", "south.clinic.test")):
    Domain.objects.create(domain=host, tenant=Clinic.objects.create(schema_name=schema, name=schema), is_primary=True)
"""


@pytest.fixture
def tenants_env(env: dict[str, str]) -> Iterator[dict[str, str]]:
    """A database in which the page's own settings have made two tenants."""
    with empty_database("tenants") as name:
        env |= {"DATABASE_NAME": name, "DEPLOY_SETTINGS": "settings_tenants.py", "DEPLOY_URLS": "clinic.records.views"}
        for words in (["migrate_schemas", "--shared", "-v0"], ["shell", "-v0", "-c", TENANTS]):
            subprocess.run(["python", "-m", "django", *words], cwd=ROOT, env=env, check=True, timeout=120)
        yield env


def test_django_tenants_with_the_keys_in_the_public_schema(tenants_env: dict[str, str], proxies: Proxies) -> None:
    port = free_port()

    def visit(number: int) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        schema = ("north", "south")[number % 2]
        connection.request("GET", f"/visit?text=text-{number}", headers={"Host": f"{schema}.clinic.test"})
        answer = json.loads(connection.getresponse().read())
        connection.close()
        assert (answer["schema"], answer["text"]) == (schema, f"text-{number}")
        return int(answer["pid"])

    command = command_of("gunicorn_gthread.py")
    for _ in range(2):  # The second time, the keys of the first are there.
        with running(command, tenants_env | {"PORT": str(port)}) as server, ThreadPoolExecutor(8) as pool:
            wait_for(port, server)
            workers = set(pool.map(visit, range(40)))
        counts = proxies.taken_counts()
    assert counts == {WEST: {"Decrypt": len(workers)}}
