"""What all commands have in common: one JSON schema, exact exit codes, and what a terminal is shown."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import load_command_class
from jsonschema import Draft202012Validator
from pytest_django import Settings

from django_asherah import engine, lifecycle
from django_asherah.management.base import EXIT_CODES
from tests.databases import ROOT, VENDOR, as_asherah, execute, url_of
from tests.lifecycle.conftest import Run
from tests.lifecycle.processes import environment, manage, on_terminal
from tests.testapp.models import Note

pytestmark = pytest.mark.django_db(transaction=True)

COMMANDS = ("status", "rotate", "revoke", "rewrap", "verify", "reencrypt")
SK_ID, IK_ID = "_SK_suite_tests", "_IK_default_suite_tests"
SCHEMA = Draft202012Validator(json.loads((ROOT / "docs/reference/commands.schema.json").read_text()))


class TestSchema:
    """``docs/reference/commands.schema.json``; whatever the commands print must be allowed there."""

    @pytest.fixture
    def require(self, run: Run) -> Callable[..., None]:
        def require(code: int, *words: str) -> None:
            document = run(*words)
            assert document.pop("code") == code
            SCHEMA.validate(document)
            assert document["ok"] is (code == 0) is (document["problems"] == [])
            assert document["command"] == words[0]

        return require

    def test_it_is_a_schema_and_refuses_what_it_should(self) -> None:
        Draft202012Validator.check_schema(SCHEMA.schema)
        good = {"command": "asherah_rewrap", "ok": True, "dry_run": False, "summary": {}, "items": [], "problems": []}
        SCHEMA.validate(good)
        for change in (
            {"command": "asherah_other"},
            {"summary": {"rewrapped": 1}},
            {"items": [{"key_id": "x"}]},
            {"problems": [{"at": "x"}]},
            {"more": 1},
        ):
            assert not SCHEMA.is_valid(good | change), change

    def test_with_an_empty_table(self, require: Callable[..., None]) -> None:
        require(0, "asherah_status")
        require(1, "asherah_verify")
        require(1, "asherah_verify", "--data")
        require(1, "asherah_revoke", SK_ID, "--latest")
        require(0, "asherah_reencrypt")
        require(0, "asherah_reencrypt", "--enqueue", "--dry-run")
        require(0, "asherah_rotate")

    def test_with_keys_and_data(self, require: Callable[..., None], regional: Callable[..., None]) -> None:
        regional()
        Note.objects.create(body="x", other_body="")
        Note.objects.create(body="y", other_body="")
        require(0, "asherah_status")
        require(0, "asherah_rotate", "--dry-run")
        require(0, "asherah_rotate")
        require(0, "asherah_reencrypt", "--dry-run")
        require(0, "asherah_reencrypt", "testapp.Note.body")
        require(0, "asherah_verify", "--data")
        require(0, "asherah_rewrap")
        require(0, "asherah_revoke", IK_ID, "--latest", "--dry-run")
        require(0, "asherah_revoke", IK_ID, "--latest")

    def test_with_everything_wrong(self, require: Callable[..., None], regional: Callable[..., None]) -> None:
        regional()
        Note.objects.create(body="x", other_body="")
        execute("default", "UPDATE testapp_note SET body = 'damaged'")
        require(1, "asherah_verify", "--data")
        require(1, "asherah_reencrypt", "--all")
        regional(down=frozenset({"two"}))
        require(1, "asherah_rotate")
        require(0, "asherah_rotate", "--allow-missing-regions")
        require(1, "asherah_status")
        require(1, "asherah_rewrap")
        regional({"one": "arn-1", "three": "arn-3"})
        require(1, "asherah_verify")
        require(0, "asherah_rewrap", "--dry-run")
        require(0, "asherah_rewrap")


class TestHelp:
    @pytest.mark.parametrize("name", COMMANDS)
    def test_it_says_what_the_command_does_and_how_it_ends(self, name: str) -> None:
        parser = load_command_class("django_asherah", f"asherah_{name}").create_parser("manage.py", f"asherah_{name}")
        shown = " ".join(parser.format_help().split())
        assert shown.endswith(EXIT_CODES)
        for action in parser._actions:
            assert action.help, f"{action.dest} has no help"

    @pytest.mark.parametrize("name", COMMANDS)
    def test_the_reference_has_every_option(self, name: str) -> None:
        page = (ROOT / "docs/reference/commands.md").read_text()
        section = page.partition(f"## `asherah_{name}`")[2].partition("\n## ")[0]
        common = page.partition("\n## ")[0]
        parser = load_command_class("django_asherah", f"asherah_{name}").create_parser("manage.py", f"asherah_{name}")
        for action in parser._action_groups[1]._group_actions + parser._action_groups[0]._group_actions:
            for option in action.option_strings:
                if option.startswith("--") and option not in DJANGOS_OWN:
                    assert f"`{option}" in section + common, f"{option} of asherah_{name} is not documented"


DJANGOS_OWN = {
    *("--help", "--version", "--verbosity", "--settings", "--pythonpath", "--traceback", "--no-color"),
    *("--force-color", "--skip-checks"),
}


@pytest.fixture
def url(shared_alias: str, settings: Settings) -> str:
    """Where processes of their own find keys, and three values that are not under the newest."""
    settings.ASHERAH = as_asherah(DATABASE=shared_alias)
    Note.objects.using(shared_alias).bulk_create(Note(body=str(number), other_body="") for number in range(3))
    lifecycle.rotate()
    return url_of(shared_alias)


@pytest.mark.slow
class TestProcesses:
    def test_exit_codes(self, url: str) -> None:
        for code, words in (
            (0, ("asherah_status",)),
            (0, ("asherah_verify", "--data", "testapp.Note")),
            (1, ("asherah_rewrap",)),
            (2, ("asherah_status", "--state", "no such state")),
            (2, ("asherah_verify", "--data", "testapp.Nobody")),
            (2, ("asherah_status", "--database", "nowhere")),
        ):
            done = manage(url, *words)
            assert done.returncode == code, done.stderr
            assert "Traceback" not in done.stderr
            assert bool(done.stderr) is (code != 0), done.stderr

    def test_a_pipe_gets_json_alone(self, url: str) -> None:
        done = manage(url, "asherah_verify", "--data", "testapp.Note", "--json")
        assert json.loads(done.stdout)["summary"]["values"] == 6
        assert done.stderr == ""

    def test_a_database_without_tables_is_a_problem_in_one_line(self, tmp_path: Path) -> None:
        done = manage(f"sqlite:///{tmp_path / 'empty.sqlite3'}", "asherah_reencrypt", "--json")
        assert done.returncode == 1
        (problem,) = json.loads(done.stdout)["problems"]
        assert problem["reason"].startswith("no such table: ")
        assert "Traceback" not in done.stderr

    def test_interrupted_and_run_again(self, url: str, shared_alias: str) -> None:
        words = ("asherah_reencrypt", "testapp.Note.body", "--batch", "1", "--rate", "0.5")
        # Whatever runs in a shell's background ignores the signal, and so would the command.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(
            [sys.executable, "-m", "django", *words],
            cwd=ROOT,
            env=environment(url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        pause = threading.Event()
        while process.poll() is None and not self.rewritten(shared_alias):
            pause.wait(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert err == "Interrupted. Nothing is lost; run the command again to resume.\n"
        assert process.returncode == 130
        assert 0 < self.rewritten(shared_alias) < 3
        assert manage(url, *words[:2]).returncode == 0
        assert self.rewritten(shared_alias) == 3
        assert [note.body for note in Note.objects.using(shared_alias).order_by("pk")] == ["0", "1", "2"]

    def rewritten(self, alias: str) -> int:
        created = engine.get_factory().intermediate_keys.current(IK_ID).meta.created
        return sum(f'"Created":{created}}}' in text for (text,) in execute(alias, "SELECT body FROM testapp_note"))


@pytest.mark.slow
class TestTerminal:
    def test_progress_has_a_rate_and_what_is_left(self, url: str) -> None:
        words = ("asherah_reencrypt", "testapp.Note.body", "--batch", "1", "--rate", "5")
        shown, code = on_terminal(url, *words, TQDM_MININTERVAL="0")
        assert code == 0
        assert re.search(r"2\.00/3\.00 \[00:00<00:00, +[\d.]+value/s\]", shown), shown
        assert manage(url, *words).stderr == ""

    def test_so_do_verify_and_rotate(self, url: str) -> None:
        for words, unit in (
            (("asherah_verify", "--data", "testapp.Note"), "value"),
            (("asherah_verify",), "key"),
            (("asherah_rotate",), "key"),
        ):
            shown, code = on_terminal(url, *words, TQDM_MININTERVAL="0")
            assert code == 0
            assert re.search(rf"\d/\d\S* \[00:0\d<\S+ +[\d.?]+{unit}/s\]", shown), shown
            assert unit + "/s" not in manage(url, *words).stderr

    @pytest.mark.parametrize(("answer", "code", "revoked"), [("n", 2, 0), ("", 2, 0), ("y", 0, 1), ("YES", 0, 1)])
    def test_revoke_asks(self, url: str, shared_alias: str, answer: str, code: int, revoked: int) -> None:
        shown, ended = on_terminal(url, "asherah_revoke", IK_ID, "--latest", typed=f"{answer}\n")
        assert re.search(rf"Revoke {IK_ID} created \d+, the key of 1 partitions\? \[y/N\] ", shown), shown
        assert ended == code
        assert sum(key.state == "revoked" for key in lifecycle.list_keys()) == revoked
        assert ("Nothing was revoked." in shown) is not revoked
        if revoked:
            assert "Partitions affected: default." in shown
            assert "manage.py asherah_rotate --expired" in shown
            assert "manage.py asherah_reencrypt" in shown

    def test_revoke_does_not_ask_if_told_so_nor_without_a_terminal(self, url: str) -> None:
        shown, code = on_terminal(url, "asherah_revoke", IK_ID, "--latest", "--no-input")
        assert (code, "[y/N]" in shown) == (0, False)
        done = manage(url, "asherah_revoke", SK_ID, "--latest")
        assert (done.returncode, done.stderr) == (0, "")


def test_database_names_another_key_table(run: Run, file_alias: str, settings: Settings) -> None:
    settings.ASHERAH = as_asherah(DATABASE=file_alias)
    engine.get_session("elsewhere").encrypt(b"")
    settings.ASHERAH = as_asherah(DATABASE="default")
    assert run("asherah_status")["summary"]["partitions"] == 0
    assert run("asherah_status", "--database", file_alias)["summary"]["partitions"] == 1
    assert run("asherah_rotate", "--database", file_alias)["summary"]["intermediate_keys"] == 1
    assert run("asherah_verify", "--database", file_alias)["summary"]["intermediate_keys"] == 2
    assert run("asherah_revoke", SK_ID, "--latest", "--database", file_alias)["items"][0]["partitions"] == ["elsewhere"]
    assert run("asherah_status")["summary"]["keys"] == {}


def test_data_database_names_where_the_values_are(run: Run, file_alias: str) -> None:
    Note.objects.using(file_alias).create(body="x", other_body="")
    lifecycle.rotate()
    assert run("asherah_verify", "--data", "testapp.Note")["summary"]["values"] == 0
    here: tuple[str, ...] = ("--data-database", file_alias)
    assert run("asherah_verify", "--data", "testapp.Note", *here)["summary"]["values"] == 2
    assert run("asherah_reencrypt", "testapp.Note", *here)["summary"]["rewritten"] == {
        "testapp.Note.body": 1,
        "testapp.Note.other_body": 1,
    }


def test_no_error_of_the_database_shows_a_value(run: Run) -> None:
    Note.objects.create(body="x", other_body="")
    execute("default", "ALTER TABLE testapp_note RENAME TO hidden")
    try:
        document: dict[str, Any] = run("asherah_reencrypt", "testapp.Note")
    finally:
        execute("default", "ALTER TABLE hidden RENAME TO testapp_note")
    assert document["code"] == 1
    assert "\n" not in document["problems"][0]["reason"]
    if VENDOR == "postgresql":
        assert document["problems"][0]["reason"] == 'relation "testapp_note" does not exist'
