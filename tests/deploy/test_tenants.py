"""django-tenants, whose connections have a ``search_path``: keys are read where they are stored, or refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.databases import ROOT
from tests.deploy.servers import database_variables, empty_database, finding_the_project
from tests.faults.processes import environment

SCHEMAS = ("north", "south")
START = """
import json, sys
import django
django.setup()
from django.apps import apps
from django.db import connection, transaction
from django_tenants.utils import schema_context
from django_asherah import engine, lifecycle
Visit = apps.get_model("records.Visit")
"""
MAKE_TENANTS = """
from clinic.models import Clinic, Domain
for schema in sys.argv[1:]:
    Domain.objects.create(domain=f"{schema}.clinic.test", tenant=Clinic.objects.create(schema_name=schema, name=schema))
"""
WRITE = """
for schema in sys.argv[1:]:
    with schema_context(schema):
        Visit.objects.create(remark=f"first of {schema}")
        with transaction.atomic():
            Visit.objects.create(remark=f"second of {schema}")
        engine.get_session(schema).encrypt(b"makes a key of its own")
"""
READ = """
def texts():
    return [visit.remark for visit in Visit.objects.order_by("pk")]

said = {}
for schema in sys.argv[1:]:
    with schema_context(schema):
        with transaction.atomic():
            inside = texts()
        engine.get_factory().clear()
        said[schema] = [inside, texts(), sorted(key.meta.key_id for key in lifecycle.list_keys())]
        said[schema].append([str(problem) for problem in lifecycle.verify_keys().problems])
        said[schema].append(connection.schema_name)
print(json.dumps(said))
"""


@pytest.fixture
def env() -> Iterator[dict[str, str]]:
    """An empty database, and the environment of a project with tenants in it."""
    with empty_database("schemas") as name:
        yield finding_the_project(environment("default", {})) | {
            **database_variables(),
            "DATABASE_NAME": name,
            "DJANGO_SETTINGS_MODULE": "tests.deploy.tenant_settings",
            "DEPLOY_SETTINGS": "settings_tenants.py",
            "DEPLOY_URLS": "clinic.records.views",
        }


def python(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
    )


def manage(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return python(env, "-m", "django", *words)


def run(env: dict[str, str], program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program of a process of its own, which has opened no key yet."""
    return python(env, "-c", START + program, *words)


def rows_of(env: dict[str, str], schema: str) -> int:
    program = (
        f"with connection.cursor() as cursor:\n    cursor.execute('SELECT COUNT(*) FROM {schema}.encryption_key')\n"
    )
    return int(run(env, f"{program}    print(cursor.fetchone()[0])").stdout)


def execute_in(env: dict[str, str], statement: str) -> None:
    """Execute a statement in the project's database, in a session in which nothing was set."""
    at = {name.lower(): env[f"DATABASE_{name}"] for name in ("HOST", "PORT", "USER")}
    with psycopg.connect(**at, dbname=env["DATABASE_NAME"], autocommit=True) as connection:
        connection.execute(statement)


def set_up(env: dict[str, str]) -> None:
    for done in (manage(env, "migrate_schemas", "--shared", "-v0"), run(env, MAKE_TENANTS, *SCHEMAS)):
        assert done.returncode == 0, done.stderr


KEY_IDS = ["_IK_default_suite_tests", "_IK_north_suite_tests", "_IK_south_suite_tests", "_SK_suite_tests"]


def require_that_another_process_reads_what_one_writes(env: dict[str, str]) -> None:
    written = run(env, WRITE, *SCHEMAS)
    assert written.returncode == 0, written.stderr

    read = run(env, READ, *SCHEMAS)

    assert read.returncode == 0, read.stderr
    found: dict[str, Any] = json.loads(read.stdout)
    for schema in SCHEMAS:
        texts = [f"first of {schema}", f"second of {schema}"]
        assert found[schema] == [texts, texts, KEY_IDS, [], schema]


@pytest.mark.parametrize("where", ["public", "both"])
def test_what_a_tenant_wrote_another_process_reads_in_its_schema(env: dict[str, str], where: str) -> None:
    env |= {"KEY_SCHEMAS": where, "SILENCED": "asherah.E018"}
    set_up(env)
    require_that_another_process_reads_what_one_writes(env)
    assert rows_of(env, "public") == 4
    if where == "both":
        assert [rows_of(env, schema) for schema in SCHEMAS] == [0, 0]


def test_a_public_schema_of_another_name_is_the_keys_though_its_path_is_set_once_for_each_connection(
    env: dict[str, str],
) -> None:
    env |= {"KEY_SCHEMAS": "public", "PUBLIC_SCHEMA": "common", "LIMIT_SET_CALLS": "true"}
    for schema in ("common", "public"):
        execute_in(env, f"CREATE SCHEMA IF NOT EXISTS {schema}")
    set_up(env)
    execute_in(env, "CREATE TABLE public.encryption_key (LIKE common.encryption_key INCLUDING ALL)")
    require_that_another_process_reads_what_one_writes(env)
    assert [rows_of(env, schema) for schema in ("common", "public")] == [4, 0]


@pytest.mark.parametrize("where", ["tenants", "both"])
def test_a_key_table_in_each_tenants_schema_is_refused_before_the_first_migration(
    env: dict[str, str], where: str
) -> None:
    env |= {"KEY_SCHEMAS": where}
    for words in (["check"], ["migrate_schemas", "--shared"]):
        done = manage(env, *words)
        assert done.returncode != 0
        assert "(asherah.E018) 'django_asherah' is in TENANT_APPS" in done.stderr


def test_without_a_key_table_in_the_public_schema_nothing_is_written(env: dict[str, str]) -> None:
    env |= {"KEY_SCHEMAS": "tenants", "SILENCED": "asherah.E018"}
    set_up(env)

    written = run(env, WRITE, *SCHEMAS)

    assert written.returncode == 1
    assert (
        "MetastoreError: records.Visit.remark: the key table 'encryption_key' of database 'default'" in written.stderr
    )
    assert "is the database migrated" in written.stderr.lower()
    assert [rows_of(env, schema) for schema in SCHEMAS] == [0, 0]
