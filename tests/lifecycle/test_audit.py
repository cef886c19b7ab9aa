"""One audit line and one signal for whatever happens to a key, and no secret in either."""

from __future__ import annotations

import base64
import json
import logging
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.dispatch import Signal

from django_asherah import audit, engine, lifecycle, signals
from django_asherah.envelope.records import KeyMeta
from django_asherah.lifecycle import list_keys
from django_asherah.models import EncryptionKey
from tests.databases import ROOT, in_thread
from tests.moto_servers import MotoRegion

pytestmark = pytest.mark.django_db(transaction=True)

SK_ID, IK_ID = "_SK_suite_tests", "_IK_default_suite_tests"
NAMES = ("key_created", "key_rotated", "key_revoked", "key_rewrapped", "region_failed")
ME = f"os:{pwd.getpwuid(os.geteuid()).pw_name}@{socket.gethostname()}"


class Heard:
    """Every signal and every audit line, in order."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.signals: list[tuple[str, dict[str, Any]]] = []
        self._caplog = caplog

    @property
    def lines(self) -> list[str]:
        return [record.getMessage() for record in self._caplog.records if record.name == "django_asherah.audit"]


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> Iterator[Heard]:
    heard = Heard(caplog)
    listeners: list[tuple[Signal, Any]] = []
    for name in NAMES:

        def listen(sender: Any, signal: Any, name: str = name, **details: Any) -> None:
            heard.signals.append((name, details))

        signal: Signal = getattr(signals, name)
        signal.connect(listen)
        listeners.append((signal, listen))
    with caplog.at_level(logging.INFO, "django_asherah.audit"):
        yield heard
    for signal, listener in listeners:
        signal.disconnect(listener)


def test_a_key_made_rotated_and_revoked(heard: Heard) -> None:
    engine.get_session().encrypt(b"x")
    system, made = (next(key.meta for key in list_keys() if key.kind == kind) for kind in ("system", "intermediate"))
    rotated = lifecycle.rotate(partitions=["default"]).intermediate_keys[0]
    lifecycle.revoke(IK_ID)
    assert isinstance(rotated, KeyMeta)
    newer_system = next(key.meta for key in list_keys() if key.meta.key_id == SK_ID)  # The newest comes first.
    assert newer_system.created > system.created
    assert heard.signals == [
        (name, {"key_id": meta.key_id, "created": meta.created, "by": ME})
        for name, meta in (
            ("key_created", system),
            ("key_created", made),
            ("key_created", newer_system),
            ("key_rotated", newer_system),
            ("key_created", rotated),
            ("key_rotated", rotated),
            ("key_revoked", rotated),
        )
    ]
    assert heard.lines == [
        f"{name.removeprefix('key_')} key_id={details['key_id']} created={details['created']} by={ME}"
        for name, details in heard.signals
    ]


def test_what_changes_nothing_leaves_no_line(heard: Heard, regional: Callable[..., None]) -> None:
    regional()
    engine.get_session().encrypt(b"x")
    lifecycle.revoke(IK_ID)
    heard.signals.clear()
    before = len(heard.lines)
    lifecycle.revoke(IK_ID)
    lifecycle.rewrap()
    for dry in (lambda: lifecycle.rotate(dry_run=True), lambda: lifecycle.revoke(SK_ID, dry_run=True)):
        dry()
    regional({"one": "arn-1"})
    lifecycle.rewrap(dry_run=True)
    assert (heard.signals, heard.lines[before:]) == ([], [])


@pytest.mark.slow
def test_a_failed_region(heard: Heard, moto: Callable[..., None], doomed: MotoRegion) -> None:
    moto()
    doomed.kill()
    engine.get_session().encrypt(b"x")
    (_, failure) = heard.signals[0]
    assert (failure["region"], failure["master_key"], failure["operation"]) == (doomed.region, doomed.arn, "Encrypt")
    assert failure["consequence"] == "the new system key can't be opened there until it is re-wrapped"
    assert heard.lines[0].startswith(
        f"region_failed region={doomed.region} master_key={doomed.arn} operation=Encrypt "
        f'consequence="{failure["consequence"]}" cause="EndpointConnectionError: '
    )


@pytest.mark.slow
def test_a_failing_region_is_logged_once_for_each_key(
    moto: Callable[..., None], steady: MotoRegion, doomed: MotoRegion, caplog: pytest.LogCaptureFixture
) -> None:
    moto([doomed, steady])
    record = engine.get_session().encrypt(b"x")
    doomed.kill()
    engine.get_factory().clear()
    with caplog.at_level(logging.DEBUG, "django_asherah"):
        engine.get_session().decrypt(record)
    lines = [
        (line.name, line.levelname, line.getMessage()) for line in caplog.records if doomed.region in line.getMessage()
    ]
    assert [(name, level) for name, level, _ in lines] == [("django_asherah.audit", "WARNING")]
    assert lines[0][2].startswith(f"region_failed region={doomed.region} master_key={doomed.arn} operation=Decrypt ")


@pytest.mark.slow
def test_a_key_rewrapped(heard: Heard, moto: Callable[..., None], steady: MotoRegion) -> None:
    moto()
    engine.get_session().encrypt(b"x")
    moto(regions=[steady])
    lifecycle.rewrap()
    (created,) = [key.meta.created for key in list_keys() if key.kind == "system"]
    details = {"key_id": SK_ID, "created": created, "regions": [steady.region], "by": ME}
    assert heard.signals[-1] == ("key_rewrapped", details)
    assert heard.lines[-1] == f"rewrapped key_id={SK_ID} created={created} regions={steady.region} by={ME}"


def test_a_listener_that_fails_stops_nothing(heard: Heard) -> None:
    def fail(**kwargs: Any) -> None:
        raise RuntimeError("a listener")

    signals.key_revoked.connect(fail)
    try:
        engine.get_session().encrypt(b"x")
        lifecycle.revoke(IK_ID)
    finally:
        signals.key_revoked.disconnect(fail)
    assert [key.state for key in list_keys() if key.kind == "intermediate"] == ["revoked"]


def test_a_partitions_name_cant_forge_a_line_or_a_detail(heard: Heard) -> None:
    name = 'p created=1\nrevoked key_id="x"'
    engine.get_session(name).encrypt(b"x")
    line = heard.lines[-1]
    assert "\n" not in line
    quoted, _, rest = line.removeprefix("created key_id=").removesuffix(f" by={ME}").rpartition(" created=")
    assert json.loads(quoted) == f"_IK_{name}_suite_tests"
    assert rest.isdecimal()


@pytest.mark.slow
def test_no_line_holds_key_bytes(heard: Heard, moto: Callable[..., None], doomed: MotoRegion) -> None:
    moto()
    record = engine.get_session().encrypt(b"the plaintext")
    lifecycle.rotate()
    doomed.kill()
    engine.reset()
    engine.get_session().decrypt(record)
    lifecycle.revoke(SK_ID)
    said = "\n".join(heard.lines) + repr(heard.signals)
    assert len(heard.lines) >= 7
    for row in EncryptionKey.objects.all():
        assert row.key_record["Key"][:24] not in said
        for kek in json.loads(base64.b64decode(row.key_record["Key"]))["kmsKeks"] if "_SK_" in row.key_id else ():
            assert kek["encryptedKek"][:24] not in said
    assert "the plaintext" not in said
    assert record[:40] not in said


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("ä", "ä"),
        (["a", "b"], "a,b"),
        ("", ""),
        ("a b", '"a b"'),
        ("a=b", '"a=b"'),
        ('"', '"\\""'),
        ("\u2028", '"\\u2028"'),
        (5, "5"),
    ],
)
def test_details_are_one_word_each(value: Any, word: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "django_asherah.audit"):
        audit.record(Signal(), "did", detail=value)
    assert caplog.messages == [f"did detail={word} by={ME}"]


class TestWho:
    def test_the_innermost_says(self, heard: Heard) -> None:
        with audit.acting_as("celery:1"):
            with audit.acting_as("task:2"):
                engine.get_session().encrypt(b"x")
            lifecycle.revoke(IK_ID)
        lifecycle.revoke(SK_ID)
        assert [details["by"] for _, details in heard.signals] == ["task:2", "task:2", "celery:1", ME]
        assert [line.rpartition(" by=")[2] for line in heard.lines] == ["task:2", "task:2", "celery:1", ME]

    def test_a_block_that_fails_ends(self) -> None:
        with pytest.raises(ZeroDivisionError), audit.acting_as("celery:1"):
            raise ZeroDivisionError
        assert audit.actor() == ME

    def test_a_name_cant_forge_a_line_or_a_detail(self, heard: Heard) -> None:
        name = 'admin:eve#1\nrevoked key_id="x" by=admin:bob#2'
        with audit.acting_as(name):
            engine.get_session().encrypt(b"x")
        for line in heard.lines:
            assert "\n" not in line
            assert json.loads(line.partition(" by=")[2]) == name

    def test_a_thread_of_its_own_acts_for_the_process(self) -> None:
        with audit.acting_as("task:1"):
            assert in_thread(audit.actor) == ME

    @pytest.mark.slow
    def test_a_user_without_a_name_is_a_number_and_the_environment_names_nobody(self) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root can become another user")
        names = {"LOGNAME": "mallory", "USER": "mallory", "PYTHONDONTWRITEBYTECODE": "1"}
        environment = {**os.environ, **names, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "tests.settings"}
        code = "from django_asherah import audit; import os; os.setuid(54321); print(audit.actor())"
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == f"os:54321@{socket.gethostname()}\n"
