"""A conversion that ends at any statement goes on, and a real process may be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from django.db import connections, models

from django_asherah import engine
from django_asherah.fields import EncryptedJSONField, EncryptedTextField
from django_asherah.lifecycle.swap import ROWS_PER_TRANSACTION
from django_asherah.operations import DecryptField, EncryptField
from tests.conversion.conftest import Crash, CrashAt, Table
from tests.conversion.test_encrypt import RECORD
from tests.databases import ROOT, VENDOR, execute, url_of

pytestmark = pytest.mark.django_db(transaction=True)

Make = Callable[..., Table]

MOVES = {
    "text": (models.CharField(max_length=300, db_index=True), EncryptedTextField(), ["a", "", RECORD]),
    "json": (models.JSONField(), EncryptedJSONField(), [{"a": 1}, None, {"Key": {}}]),
}


@pytest.fixture
def alias(transactional_db: None) -> str:
    return "default"


def crash(table: Table, operation: Any, number: int) -> bool:
    """Run an operation that ends before its statement ``number``; tell whether it had so many."""
    try:
        with CrashAt(table.alias, number):
            table.migrate(operation)
    except Crash:
        return True
    return False


@pytest.mark.parametrize("kind", MOVES)
@pytest.mark.parametrize("direction", ["encrypt", "decrypt"])
def test_interrupted_before_any_statement_it_goes_on(make_table: Make, kind: str, direction: str) -> None:
    plain, secret, values = MOVES[kind]
    before, after = (plain, secret) if direction == "encrypt" else (secret, plain)
    operation = (EncryptField if direction == "encrypt" else DecryptField)("thing", "secret", after)
    stored = [models.Value(None, models.JSONField()) if value is None else value for value in values]
    engine.get_session().encrypt(b"so that the key is there")
    for number in count():
        table = make_table(before)
        table.save(*stored)
        crashed = crash(table, operation, number)
        if crashed:
            table.migrate(operation)
        assert table.values() == values, f"statement {number}"
        assert all(("_IK_default" in raw) is (direction == "encrypt") for raw in map(str, table.raw()) if raw != RECORD)
        table.drop()
        if not crashed:
            break
    assert number > 8


@pytest.mark.parametrize("kind", MOVES)
@pytest.mark.parametrize("direction", ["encrypt", "decrypt"])
def test_done_but_not_recorded_it_finds_nothing_left(make_table: Make, kind: str, direction: str) -> None:
    plain, secret, values = MOVES[kind]
    before, after = (plain, secret) if direction == "encrypt" else (secret, plain)
    operation = (EncryptField if direction == "encrypt" else DecryptField)("thing", "secret", after)
    table = make_table(before)
    table.save(*[value for value in values if value is not None])
    state = table.state
    table.migrate(operation)
    done = table.raw()
    table.state = state
    table.migrate(operation)
    assert table.raw() == done


KILLED = """
from tests.conversion.killed import statement_limit
from django.core.management import call_command
with statement_limit(int(sys.argv[2])):
    call_command("migrate", "movedapp", sys.argv[1], verbosity=0)
"""


UPDATES = 1 if VENDOR == "postgresql" else ROWS_PER_TRANSACTION
"""How many may be sent before the process is killed: the first batch is then done, and the second begun."""


@pytest.mark.slow
class TestKilled:
    """Processes of ``manage.py migrate``, killed by SIGKILL."""

    ROWS = ROWS_PER_TRANSACTION + 50

    def migrate(self, url: str, target: str, limit: int) -> int:
        done = subprocess.run(
            [sys.executable, "-c", f"import sys, django; django.setup()\n{KILLED}", target, str(limit)],
            cwd=ROOT,
            env={**os.environ, "DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "tests.conversion.settings"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode in {0, -signal.SIGKILL}, done.stderr
        return done.returncode

    def test_killed_midway_it_goes_on_both_ways(self, empty_alias: str) -> None:
        url = url_of(empty_alias) + ("?options=-c%20search_path%3Dempty" if VENDOR == "postgresql" else "")
        assert self.migrate(url, "0001", -1) == 0
        values = [f"value {number}" for number in range(self.ROWS)]
        execute(empty_alias, f"INSERT INTO movedapp_thing (secret) VALUES {', '.join(['(%s)'] * self.ROWS)}", values)
        for target, is_done in (("0002", self.is_record), ("0001", str.isprintable)):
            assert self.migrate(url, target, UPDATES) == -signal.SIGKILL
            raws = [raw for (raw,) in execute(empty_alias, "SELECT secret FROM movedapp_thing")]
            assert 0 < sum(map(self.is_record, raws)) < self.ROWS
            assert self.migrate(url, target, -1) == 0
            raws = [raw for (raw,) in execute(empty_alias, "SELECT secret FROM movedapp_thing ORDER BY id")]
            assert all(map(is_done, raws))
        assert raws == values
        with connections[empty_alias].cursor() as cursor:
            tables = connections[empty_alias].introspection.table_names(cursor)
        assert not [name for name in tables if name.startswith("asherah_moving_")]

    @staticmethod
    def is_record(raw: str) -> bool:
        return raw.startswith('{"Key":{')
