"""``docs/how-to/adopt-an-asherah-table.md``, step by step, with an official SDK at work before and after."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connections
from pytest_django import Settings

from django_asherah import engine
from django_asherah.models import EncryptionKey
from tests.databases import ROOT, VENDOR, as_asherah, execute, url_of
from tests.interop.peers import STATIC_KEY, Peer, static_config

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "how-to" / "adopt-an-asherah-table.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^ *```sql\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)

PUBLISHED = """CREATE TABLE encryption_key (id VARCHAR(255) NOT NULL,
    created TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, key_record TEXT NOT NULL, PRIMARY KEY (id, created))"""
"""The one DDL that Asherah publishes (``docs/Metastore.md``), as far as every database takes it."""


def steps(*parts: str) -> list[str]:
    """Return the statements of the page's only SQL block that holds ``parts``."""
    (block,) = [sql for sql in BLOCKS if all(part in sql for part in parts)]
    return [statement.strip() for statement in block.split(";") if statement.strip()]


REPAIRS = {
    "mysql": steps("utf8mb4_bin"),
    "postgresql": [*steps("timestamptz"), *steps("jsonb")],
    "sqlite": [],
}[VENDOR]
ROW_ID = {"mysql": steps("AUTO_INCREMENT"), "postgresql": steps("IDENTITY"), "sqlite": steps("RENAME")}[VENDOR]
NO_ROW_ID = {"asherah.W032"}
FOUND = NO_ROW_ID | {"mysql": {"asherah.E033"}, "postgresql": {"asherah.W030"}, "sqlite": set()}[VENDOR]


def start_peer(start: Callable[..., Peer], alias: str) -> Peer:
    connections[alias].ensure_connection()
    config = static_config("rust", url_of(alias))
    if VENDOR == "postgresql":
        config["ConnectionString"] += "?options=-csearch_path%3Dempty"
    return start("rust", config)


def found_by_check(alias: str) -> set[str]:
    err = StringIO()
    try:
        call_command("check", databases=[alias], stderr=err)
    except SystemCheckError as exc:
        err.write(str(exc))
    return set(re.findall(r"asherah\.\w\d{3}", err.getvalue()))


def run(name: str, alias: str) -> str:
    out = StringIO()
    call_command(name, database=alias, stdout=out)
    return out.getvalue()


def tell_django(alias: str) -> None:
    """Run the page's ``migrate``, with the checks that it makes on a command line."""
    call_command("migrate", "django_asherah", database=alias, fake_initial=True, verbosity=0, skip_checks=False)


@pytest.fixture
def table(empty_alias: str, settings: Settings, start: Callable[..., Peer]) -> str:
    """A table that the SDK's DDL made, of which Django knows nothing."""
    settings.ASHERAH = as_asherah(DATABASE=empty_alias, KMS_OPTIONS={"key": STATIC_KEY.hex()})
    if VENDOR == "mysql":
        execute(empty_alias, f"ALTER DATABASE {connections[empty_alias].settings_dict['NAME']} CHARACTER SET utf8mb4")
    if VENDOR != "sqlite":  # There, the Rust core makes it itself.
        execute(empty_alias, PUBLISHED)
    return empty_alias


def test_an_sdks_table_is_adopted(table: str, start: Callable[..., Peer], tmp_path: Path) -> None:
    before = {"postgresql": REPAIRS}.get(VENDOR, [])  # The Rust core itself can't insert into text.
    if before:
        assert found_by_check(table) == FOUND
        for statement in before:
            execute(table, statement)
    peer = start_peer(start, table)
    theirs = peer.encrypt("p", b"theirs")

    if not before:
        assert found_by_check(table) == FOUND
        for statement in REPAIRS:
            execute(table, statement)
    assert found_by_check(table) == NO_ROW_ID
    tell_django(table)

    assert engine.get_session("p").decrypt(theirs) == b"theirs"
    assert "other rows: 1" in run("asherah_status", table)
    assert run("asherah_verify", table) == "Opened 1 system keys and 1 intermediate keys.\n"
    ours = engine.get_session("p").encrypt(b"ours")
    assert peer.decrypt("p", ours) == b"ours"
    engine.get_session("another").encrypt(b"makes a key without row_id")

    rows = [key_id for (key_id,) in execute(table, "SELECT id FROM encryption_key ORDER BY id, created")]
    peer.close()
    for statement in ROW_ID:
        execute(table, statement)
    peer = start_peer(start, table)
    after = peer.encrypt("made by the SDK", b"theirs")
    engine.get_session("made by Django").encrypt(b"ours")

    keys = list(EncryptionKey.objects.using(table).order_by("key_id", "created"))
    expected = sorted([*rows, "_IK_made by the SDK_suite_tests", "_IK_made by Django_suite_tests"])
    assert sorted(key.key_id for key in keys) == expected
    assert len({key.row_id for key in keys}) == len(rows) + 2
    assert all(isinstance(key.key_record, dict) for key in keys)
    assert EncryptionKey.objects.using(table).get(pk=keys[0].pk) == keys[0]
    assert found_by_check(table) == set()
    assert engine.get_session("made by the SDK").decrypt(after) == b"theirs"
    assert engine.get_session("p").decrypt(ours) == b"ours"


def test_going_back_leaves_every_key(table: str, start: Callable[..., Peer]) -> None:
    for statement in REPAIRS:
        execute(table, statement)
    peer = start_peer(start, table)
    text = peer.encrypt("p", b"theirs")
    tell_django(table)
    call_command("migrate", "django_asherah", "zero", database=table, fake=True, verbosity=0)

    assert peer.decrypt("p", text) == b"theirs"
    rows: list[Any] = execute(table, "SELECT id FROM encryption_key WHERE id LIKE '%suite%'")
    assert {key_id for (key_id,) in rows} == {"_IK_p_suite_tests", "_SK_suite_tests"}
