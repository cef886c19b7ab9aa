"""What is done to data is in the audit log: what was re-encrypted, verified, converted, loaded, by whom, how far."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core import serializers
from django.core.management import call_command

from django_asherah import audit, engine, lifecycle, signals
from django_asherah.exceptions import KMSError
from django_asherah.lifecycle import KeyInfo, list_keys
from django_asherah.lifecycle.reencryption import Options
from django_asherah.models import EncryptionKey
from tests.databases import execute
from tests.lifecycle.conftest import Run
from tests.testapp.models import Note

pytestmark = pytest.mark.django_db(transaction=True)

COLUMNS = "columns=testapp.Note.body,testapp.Note.other_body databases=default"
BODY = "columns=testapp.Note.body databases=default"


@pytest.fixture(autouse=True)
def _me() -> Iterator[None]:
    with audit.acting_as("me"):
        yield


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[str, str]]]:
    """Return the level and the text of the audit lines about data, and forget them."""
    caplog.set_level(logging.INFO, "django_asherah.audit")

    def take() -> list[tuple[str, str]]:
        told = [line for line in caplog.records if line.name == "django_asherah.audit"]
        texts = [(line.levelname, line.getMessage()) for line in told]
        caplog.clear()
        quiet = ("created ", "rotated ", "record_refused ")
        return [(level, text) for level, text in texts if not text.startswith(quiet)]

    return take


@pytest.fixture
def heard() -> Iterator[list[dict[str, Any]]]:
    heard: list[dict[str, Any]] = []
    chosen = (signals.data_reencrypted, signals.data_verified, signals.keys_verified)

    def listen(sender: Any, signal: Any, **details: Any) -> None:
        heard.append(details)

    for signal in chosen:
        signal.connect(listen)
    yield heard
    for signal in chosen:
        signal.disconnect(listen)


Lines = Callable[[], list[tuple[str, str]]]


def aged(rows: int = 3) -> None:
    Note.objects.bulk_create(Note(body=f"text {number}") for number in range(rows))
    lifecycle.rotate()


class TestReencryption:
    def test_that_is_done(self, lines: Lines, heard: list[dict[str, Any]]) -> None:
        aged()
        lifecycle.reencrypt(["testapp.Note.body"])
        counts = "rewritten=3 moved=0 current=0 bad=0 shard=1/1"
        assert lines() == [("INFO", f"reencrypted {BODY} {counts} by=me")]
        assert heard == [
            {
                "columns": ["testapp.Note.body"],
                "databases": ["default"],
                "rewritten": 3,
                "moved": 0,
                "current": 0,
                "bad": 0,
                "shard": "1/1",
                "error": None,
                "by": "me",
            }
        ]

    def test_that_finds_bad_values_is_a_warning(self, lines: Lines) -> None:
        aged()
        execute("default", "UPDATE testapp_note SET body = 'damaged'")
        lifecycle.reencrypt(["testapp.Note"])
        counts = "rewritten=3 moved=0 current=0 bad=3 shard=1/1"
        assert lines() == [("WARNING", f"reencrypted {COLUMNS} {counts} by=me")]

    @pytest.mark.parametrize(("error", "level"), [(KeyboardInterrupt, "INFO"), (KMSError, "WARNING")])
    def test_that_is_broken_off_says_how_far_it_came(
        self, lines: Lines, error: type[BaseException], level: str
    ) -> None:
        aged()
        seen: list[int] = []

        def break_off(count: int) -> None:
            seen.append(count)
            if len(seen) == 2:
                raise error("a secret that goes nowhere")

        with pytest.raises(error):
            lifecycle.reencrypt(["testapp.Note.body"], options=Options(batch=1), progress=break_off)
        counts = "rewritten=2 moved=0 current=0 bad=0 shard=1/1"
        assert lines() == [(level, f"reencrypted {BODY} {counts} error={error.__name__} by=me")]

    def test_by_shards_has_a_line_for_each(self, lines: Lines) -> None:
        aged()
        for shard in lifecycle.split(["testapp.Note.body"], shards=2):
            lifecycle.run_shard(**shard)
        assert [text.partition(" shard=")[2] for _, text in lines()] == ["1/2 by=me", "2/2 by=me"]

    def test_dry_is_no_deed(self, lines: Lines, heard: list[dict[str, Any]]) -> None:
        aged()
        lifecycle.reencrypt(options=Options(dry_run=True))
        assert (lines(), heard) == ([], [])

    def test_by_command(self, lines: Lines, run: Run) -> None:
        aged()
        run("asherah_reencrypt", "testapp.Note.body")
        counts = "rewritten=3 moved=0 current=0 bad=0 shard=1/1"
        assert lines() == [("INFO", f"reencrypted {BODY} {counts} by=me")]


class TestVerification:
    def test_of_data(self, lines: Lines, heard: list[dict[str, Any]]) -> None:
        aged()
        lifecycle.verify_data(["testapp.Note"])
        assert lines() == [("INFO", f"verified_data {COLUMNS} opened=6 plaintext=0 bad=0 by=me")]
        assert heard[0] == {
            "columns": ["testapp.Note.body", "testapp.Note.other_body"],
            "databases": ["default"],
            "opened": 6,
            "plaintext": 0,
            "bad": 0,
            "sample": None,
            "error": None,
            "by": "me",
        }

    def test_of_a_sample(self, lines: Lines) -> None:
        aged()
        lifecycle.verify_data(["testapp.Note.body"], sample=2)
        assert lines() == [("INFO", f"verified_data {BODY} opened=2 plaintext=0 bad=0 sample=2 by=me")]

    def test_broken_off(self, lines: Lines) -> None:
        aged()

        def break_off(count: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            lifecycle.verify_data(["testapp.Note.body"], progress=break_off)
        assert lines() == [("INFO", f"verified_data {BODY} opened=3 plaintext=0 bad=0 error=KeyboardInterrupt by=me")]

    @pytest.mark.slow
    def test_in_processes_has_one_line_for_the_whole(self, shared_alias: str, settings: Any, lines: Lines) -> None:
        settings.ASHERAH = {**settings.ASHERAH, "DATABASE": shared_alias}
        Note.objects.using(shared_alias).bulk_create(Note(body=f"text {number}") for number in range(30))
        lines()
        lifecycle.verify_data(["testapp.Note.body"], alias=shared_alias, processes=2)
        where = f"columns=testapp.Note.body databases={shared_alias}"
        assert lines() == [("INFO", f"verified_data {where} opened=30 plaintext=0 bad=0 by=me")]

    def test_of_keys_and_of_one_key(self, lines: Lines, heard: list[dict[str, Any]]) -> None:
        aged(1)
        key = _newest("intermediate")
        lifecycle.verify_keys()
        lifecycle.verify_key(key.meta)
        named = f"key_id={key.meta.key_id} created={key.meta.created}"
        assert lines() == [
            ("INFO", "verified_keys system_keys=2 intermediate_keys=2 problems=0 by=me"),
            ("INFO", f"verified_keys {named} system_keys=1 intermediate_keys=1 problems=0 by=me"),
        ]
        assert [details["key_id"] for details in heard] == [None, key.meta.key_id]

    def test_that_finds_problems_is_a_warning(self, lines: Lines, settings: Any) -> None:
        aged(1)
        settings.ASHERAH = {**settings.ASHERAH, "KMS_OPTIONS": {"key": "11" * 32}}
        lifecycle.verify_keys()
        [(level, text)] = lines()
        assert (level, text.startswith("verified_keys system_keys=0 intermediate_keys=0 problems=")) == (
            "WARNING",
            True,
        )

    def test_by_command(self, lines: Lines, run: Run) -> None:
        aged()
        run("asherah_verify", "--data", "testapp.Note.body")
        assert [text.partition(" ")[0] for _, text in lines()] == ["verified_keys", "verified_data"]


def test_a_key_that_comes_from_a_dump(lines: Lines, tmp_path: Path) -> None:
    Note.objects.create(body="x")
    rows = list(EncryptionKey.objects.order_by("row_id"))
    path = tmp_path / "keys.json"
    path.write_text(serializers.serialize("json", rows))
    EncryptionKey.objects.all().delete()
    engine.reset()
    lines()
    for _ in range(2):  # What stands already is not loaded.
        call_command("loaddata", str(path), verbosity=0, stdout=StringIO())
    assert lines() == [
        ("INFO", f"loaded key_id={row.key_id} created={int(row.created.timestamp())} database=default by=me")
        for row in rows
    ]


def _newest(kind: str) -> KeyInfo:
    return next(key for key in list_keys() if key.kind == kind)
