"""One audit line and one signal for whatever happens to a key, and no secret in either."""

from __future__ import annotations

import base64
import json
import logging
import os
import pwd
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection
from django.dispatch import Signal

from django_asherah import audit, engine, lifecycle, signals
from django_asherah.envelope.records import KeyMeta
from django_asherah.exceptions import DecryptionError, PartitionMismatchError
from django_asherah.lifecycle import list_keys
from django_asherah.lifecycle.reencryption import Options
from django_asherah.lifecycle.sharding import split
from django_asherah.models import EncryptionKey
from django_asherah.tasks import reencrypt_shard
from tests.moto_servers import MotoRegion
from tests.testapp.models import Note

pytestmark = pytest.mark.django_db(transaction=True)

SK_ID, IK_ID = "_SK_suite_tests", "_IK_default_suite_tests"
NAMES = ("key_created", "key_rotated", "key_revoked", "key_rewrapped", "region_failed")


class Heard:
    """Every signal and every audit line, in order."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.signals: list[tuple[str, dict[str, Any]]] = []
        self._caplog = caplog

    @property
    def lines(self) -> list[str]:
        return [line.rpartition(" by=")[0] for line in self.whole_lines]

    @property
    def whole_lines(self) -> list[str]:
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
        (name, {"key_id": meta.key_id, "created": meta.created})
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
        f"{name.removeprefix('key_')} key_id={details['key_id']} created={details['created']}"
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
    assert heard.signals[-1] == ("key_rewrapped", {"key_id": SK_ID, "created": created, "regions": [steady.region]})
    assert heard.lines[-1] == f"rewrapped key_id={SK_ID} created={created} regions={steady.region}"


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
    quoted, _, rest = line.removeprefix("created key_id=").rpartition(" created=")
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
    [("ä", "ä"), ("", ""), ("a b", '"a b"'), ("a=b", '"a=b"'), ('"', '"\\""'), ("\u2028", '"\\u2028"'), (5, "5")],
)
def test_details_are_one_word_each(value: Any, word: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "django_asherah.audit"), audit.acting_as("celery:1"):
        audit.record(Signal(), "did", detail=value)
    assert caplog.messages == [f"did detail={word} by=celery:1"]


class TestWho:
    """Every line says who."""

    def test_without_another_word_it_is_the_user_of_the_process_and_its_host(self, heard: Heard) -> None:
        engine.get_session().encrypt(b"x")
        user = pwd.getpwuid(os.geteuid()).pw_name
        assert {line.rpartition(" by=")[2] for line in heard.whole_lines} == {f"os:{user}@{socket.gethostname()}"}

    def test_the_environment_has_no_say_in_it(self, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LOGNAME", "somebody-else")
        engine.get_session().encrypt(b"x")
        assert not any("somebody-else" in line for line in heard.whole_lines)

    def test_the_innermost_word_counts_and_ends_with_its_block(self, heard: Heard) -> None:
        with audit.acting_as("celery:1"):
            with audit.acting_as("admin:7:ada"):
                engine.get_session("a").encrypt(b"x")
            engine.get_session("b").encrypt(b"x")
        engine.get_session("c").encrypt(b"x")
        whos = [line.rpartition(" by=")[2] for line in heard.whole_lines]
        assert whos[:3] == ["admin:7:ada", "admin:7:ada", "celery:1"]
        assert whos[3].startswith("os:")

    def test_a_name_writes_no_detail_and_no_line_of_its_own(self, heard: Heard) -> None:
        with audit.acting_as("admin:7:ada\nrevoked key_id=x"):
            engine.get_session().encrypt(b"x")
        assert heard.whole_lines[0].endswith(r' by="admin:7:ada\nrevoked key_id=x"')


class TestData:
    """Re-encryption and verification leave a line, also if they are broken off."""

    @pytest.fixture(autouse=True)
    def _notes(self) -> None:
        Note.objects.bulk_create(Note(body=f"text {number}", other_body="x") for number in range(3))

    def last(self, heard: Heard) -> str:
        return heard.lines[-1]

    def test_a_re_encryption(self, heard: Heard) -> None:
        lifecycle.rotate()
        lifecycle.reencrypt(["testapp.Note.body"])
        assert self.last(heard) == (
            "reencrypted columns=testapp.Note.body rewritten=3 moved=0 current=0 bad=0 shard=1/1 broken_off="
        )

    def test_a_plan_of_one_leaves_none(self, heard: Heard) -> None:
        lifecycle.rotate()
        before = heard.lines
        lifecycle.reencrypt(["testapp.Note.body"], options=Options(dry_run=True))
        assert heard.lines == before

    def test_one_that_is_broken_off_says_what_it_had_done(self, heard: Heard) -> None:
        lifecycle.rotate()

        def interrupt(number: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            lifecycle.reencrypt(["testapp.Note.body"], options=Options(batch=2), progress=interrupt)
        assert self.last(heard) == (
            "reencrypted columns=testapp.Note.body rewritten=2 moved=0 current=0 bad=0 shard=1/1 "
            "broken_off=KeyboardInterrupt"
        )

    def test_a_verification_of_data(self, heard: Heard) -> None:
        lifecycle.verify_data(["testapp.Note"])
        assert self.last(heard) == (
            "verified_data columns=testapp.Note.body,testapp.Note.other_body proven=6 plaintext=0 bad=0 broken_off="
        )

    def test_a_verification_of_keys_and_of_one(self, heard: Heard) -> None:
        lifecycle.verify_keys()
        assert self.last(heard) == "verified_keys system_keys=1 intermediate_keys=1 bad=0 broken_off="
        meta = engine.get_session().newest_key().meta
        lifecycle.verify_key(meta)
        assert self.last(heard) == (
            f"verified_keys key_id={meta.key_id} created={meta.created} system_keys=1 intermediate_keys=1 bad=0 "
            "broken_off="
        )


class TestRefusedRecords:
    """A record that was tampered with is told each time, and written down once a minute."""

    @pytest.fixture
    def refused(self) -> Iterator[list[dict[str, Any]]]:
        found: list[dict[str, Any]] = []

        def listen(sender: Any, signal: Any, **details: Any) -> None:
            found.append(details)

        signals.record_refused.connect(listen)
        yield found
        signals.record_refused.disconnect(listen)

    def flipped(self, record: str | bytes) -> Any:
        if isinstance(record, bytes):
            return record[:-1] + bytes([record[-1] ^ 1])
        at = record.rindex('"Data":"') + 12
        return record[:at] + ("A" if record[at] != "A" else "B") + record[at + 1 :]

    @pytest.mark.parametrize("seal", ["encrypt", "encrypt_compact"])
    def test_a_flipped_bit(self, heard: Heard, refused: list[dict[str, Any]], seal: str) -> None:
        partition = f"flipped-{seal}"
        session = engine.get_session(partition)
        bad = self.flipped(getattr(session, seal)(b"secret"))
        for _ in range(3):
            with pytest.raises(DecryptionError):
                session.decrypt(bad)
        key_id = session.partition.intermediate_key_id
        assert [details["key_id"] for details in refused] == [key_id] * 3
        lines = [line for line in heard.lines if line.startswith("record_refused")]
        assert len(lines) == 1
        assert lines[0].startswith(f'record_refused key_id={key_id} cause="DecryptionError: ')
        assert lines[0].endswith("left_out=0")

    @pytest.mark.parametrize("seal", ["encrypt", "encrypt_compact"])
    def test_a_record_of_another_partition(self, refused: list[dict[str, Any]], seal: str) -> None:
        record = getattr(engine.get_session("theirs"), seal)(b"secret")
        with pytest.raises(PartitionMismatchError):
            engine.get_session("mine").decrypt(record)
        assert [details["key_id"] for details in refused] == ["_IK_mine_suite_tests"]

    def test_a_row_that_is_read_through_a_field(self, refused: list[dict[str, Any]]) -> None:
        note = Note.objects.create(body="secret")
        with connection.cursor() as cursor:
            cursor.execute("SELECT body FROM testapp_note WHERE id = %s", [note.pk])
            (record,) = cursor.fetchone()
            cursor.execute("UPDATE testapp_note SET body = %s WHERE id = %s", [self.flipped(record), note.pk])
        with pytest.raises(DecryptionError):
            _ = Note.objects.get(pk=note.pk).body
        assert [details["key_id"] for details in refused] == [IK_ID]

    def test_many_bad_rows_write_one_line(self, heard: Heard, refused: list[dict[str, Any]]) -> None:
        session = engine.get_session("many")
        bad = self.flipped(session.encrypt(b"secret"))
        for _ in range(500):
            with pytest.raises(DecryptionError):
                session.decrypt(bad)
        assert len(refused) == 500
        assert sum(line.startswith("record_refused") for line in heard.lines) == 1


def test_a_celery_task_says_its_id(heard: Heard) -> None:
    Note.objects.create(body="text")
    result = reencrypt_shard.apply(kwargs=split(["testapp.Note.body"], shards=1)[0])
    assert result.successful()
    assert heard.whole_lines[-1].startswith("reencrypted ")
    assert heard.whole_lines[-1].endswith(f" by=celery:{result.id}")
