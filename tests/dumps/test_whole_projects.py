"""A dump of the whole project, loaded into the same database, a full one and an empty one: no key is lost anywhere."""

from __future__ import annotations

import json

import pytest
from django.core.management import call_command
from pytest_django import Settings

from django_asherah import engine
from tests.databases import as_asherah
from tests.dumps.conftest import Dump
from tests.dumps.helpers import PARTITIONS, fill, keys_of, load, make_keys, values_of, wipe
from tests.testapp.models import Note
from tests.testapp.tenants import Member

pytestmark = pytest.mark.django_db(transaction=True)


FORMATS = [("json", False), ("json", True), ("jsonl", False), ("yaml", True), ("xml", False)]
"""Formats of fixtures, and whether what has a natural key is dumped by it."""


@pytest.mark.parametrize(("format", "natural"), FORMATS)
def test_into_one_that_is_full(dump: Dump, format: str, natural: bool) -> None:
    if format == "yaml":
        pytest.importorskip("yaml")
    make_keys(days_old=1)
    fill()
    dumped_keys, dumped = keys_of(), values_of()
    path = dump(format=format, use_natural_primary_keys=natural, use_natural_foreign_keys=natural)
    wipe()
    make_keys(days_old=3)
    Note.objects.create(pk=10_000, body="old")
    Member.objects.create(pk=10_000, tenant="b", name="2", secret="old, too")
    old_keys, old = keys_of(), values_of()

    load(path)

    assert values_of() == old | dumped
    assert dumped_keys.items() <= keys_of().items()
    assert old_keys.items() <= keys_of().items()
    assert not old_keys.keys() & dumped_keys.keys()


def test_into_the_same_database(dump: Dump) -> None:
    make_keys(days_old=2)
    fill()
    keys, values = keys_of(), values_of()

    load(dump())

    assert (keys_of(), values_of()) == (keys, values)


def test_where_its_keys_were_made_a_moment_ago(dump: Dump) -> None:
    fill()
    keys, values, path = keys_of(), values_of(), dump()
    wipe()

    load(path)

    assert values_of() == values
    assert keys.items() <= keys_of().items()


@pytest.mark.slow
def test_into_one_that_is_empty(dump: Dump, empty_alias: str, settings: Settings) -> None:
    make_keys(days_old=0)
    fill()
    keys, values = keys_of(), values_of()
    path = dump(use_base_manager=True, use_natural_primary_keys=True, use_natural_foreign_keys=True)
    call_command("migrate", database=empty_alias, run_syncdb=True, verbosity=0)
    settings.ASHERAH = as_asherah(DATABASE=empty_alias)

    load(path, database=empty_alias)

    assert values_of(empty_alias) == values
    assert keys_of(empty_alias) == keys


def test_natural_keys_leave_row_ids_out_of_the_dump(dump: Dump) -> None:
    make_keys(days_old=0)
    rows = json.loads(dump("django_asherah", use_natural_primary_keys=True).read_text())
    assert [set(row) for row in rows] == [{"model", "fields"}] * (len(PARTITIONS) + 1)


def test_what_is_written_afterwards_is_under_the_newest_loaded_key(dump: Dump) -> None:
    make_keys(days_old=1)
    path = dump("django_asherah")
    wipe()
    load(path)
    keys = keys_of()

    Note.objects.create(body="afterwards")

    engine.reset()
    assert Note.objects.get().body == "afterwards"
    assert keys_of() == keys
