"""What ``docs/how-to/back-up-and-restore.md`` says of dumps, done as it says."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from tests.databases import ROOT, execute
from tests.dumps.conftest import Dump
from tests.dumps.helpers import fill, keys_of, load, make_keys, values_of, wipe
from tests.testapp.models import Note, Typed

pytestmark = pytest.mark.django_db(transaction=True)

PAGE = (ROOT / "docs/how-to/back-up-and-restore.md").read_text(encoding="utf-8")
WAYS = [
    [shlex.split(line) for line in re.findall(r"manage\.py (.*(?:dumpdata|loaddata).*)", block)]
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    if "loaddata" in block
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: " ".join(way[-1]))
def test_each_way_loads_all_values(way: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_keys(days_old=1)
    fill()
    keys, values = keys_of(), values_of()
    monkeypatch.chdir(tmp_path)
    for name, *arguments in way[:-1]:
        call_command(name, *arguments, verbosity=0)
    wipe()
    Note.objects.create(pk=10_000, body="old")

    name, *arguments = way[-1]
    call_command(name, *arguments, verbosity=0)

    with_keys = "django_asherah" not in str(way) or "keys.json" in arguments
    assert (keys.items() <= keys_of().items()) is with_keys
    assert values_of().items() > values.items()


def test_all_three_ways_are_found() -> None:
    assert [way[-1] for way in WAYS] == [
        ["loaddata", "whole.json"],
        ["loaddata", "values.json"],
        ["loaddata", "keys.json", "values.json"],
    ]


@pytest.mark.parametrize(
    ("format", "text", "microsecond"), [("json", " x\n", 123000), ("xml", "x", 123456), ("yaml", " x\n", 123456)]
)
def test_what_a_format_keeps(dump: Dump, format: str, text: str, microsecond: int) -> None:
    if format == "yaml":
        pytest.importorskip("yaml")
    moment = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)
    Typed.objects.create(char=" x\n", moment=moment, time=moment.time())
    path = dump("testapp.Typed", format=format)
    wipe()

    load(path)

    loaded = Typed.objects.get()
    assert (loaded.char, loaded.moment.microsecond, loaded.time.microsecond) == (text, microsecond, microsecond)


def test_a_value_that_does_not_open_stops_a_dump_and_the_others_can_be_named(dump: Dump) -> None:
    broken, whole = Note.objects.create(body="broken"), Note.objects.create(body="whole")
    execute("default", "UPDATE testapp_note SET body = 'damaged' WHERE id = %s", [broken.pk])

    with pytest.raises(CommandError, match=rf"testapp\.Note\.body pk={broken.pk}: "):
        dump()

    path = dump("testapp.Note", primary_keys=str(whole.pk))
    wipe()
    load(path)
    assert Note.objects.get().body == "whole"


def test_flush_empties_the_key_table() -> None:
    make_keys(days_old=1)
    call_command("flush", interactive=False, verbosity=0)
    assert keys_of() == {}
