"""Re-encrypt: a live table, and nothing lost."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.core.management.base import CommandError
from django.db import OperationalError, connection, transaction
from django.db.models.signals import post_save, pre_save

from django_asherah import engine, lifecycle
from django_asherah.envelope.records import KeyMeta, decode_row
from django_asherah.exceptions import KMSError, MetastoreError
from django_asherah.lifecycle.reencryption import Options
from tests.databases import close_connections
from tests.fields.helpers import raw, set_raw
from tests.lifecycle.conftest import Run
from tests.testapp.models import Child, Document, Note, Parent, Tenancy

pytestmark = pytest.mark.django_db(transaction=True)


def key_of(instance: Any, name: str = "body") -> KeyMeta:
    return decode_row(raw(instance, name)).key.parent_key_meta


def newest(partition: str = "default") -> KeyMeta:
    key_id = engine.get_session(partition).partition.intermediate_key_id
    return engine.get_factory().intermediate_keys.current(key_id).meta


def test_values_move_to_the_newest_key_and_say_the_same(run: Run) -> None:
    notes = [Note.objects.create(body=f"text {number}", other_body="") for number in range(10)]
    document = Document.objects.create(doc={"a": [1, None]})
    lifecycle.rotate()
    report = run("asherah_reencrypt")
    assert report["code"] == 0
    assert report["summary"]["rewritten"] == {
        "testapp.Note.body": 10,
        "testapp.Note.other_body": 10,
        "testapp.Document.doc": 1,
        "testapp.Document.encoded": 1,
    }
    assert {key_of(note) for note in notes} == {newest()}
    assert [note.body for note in Note.objects.order_by("pk")] == [f"text {number}" for number in range(10)]
    assert Document.objects.get(pk=document.pk).doc == {"a": [1, None]}


def test_run_again_it_finds_everything_current(run: Run) -> None:
    Note.objects.create(body="x")
    lifecycle.rotate()
    run("asherah_reencrypt")
    summary = run("asherah_reencrypt", "testapp.Note")["summary"]
    assert (summary["rewritten"], summary["current"]) == ({}, {"testapp.Note.body": 1, "testapp.Note.other_body": 1})


def test_a_revoked_system_key_moves_the_values_too() -> None:
    note = Note.objects.create(body="x")
    before = key_of(note)
    lifecycle.revoke("_SK_suite_tests")
    lifecycle.reencrypt()
    assert key_of(note) != before
    assert key_of(note) == newest()


def test_all_rewrites_what_is_current(run: Run) -> None:
    note = Note.objects.create(body="x")
    before = raw(note, "body")
    assert run("asherah_reencrypt", "testapp.Note.body", "--all")["summary"]["rewritten"] == {"testapp.Note.body": 1}
    assert raw(note, "body") != before
    note.refresh_from_db()
    assert note.body == "x"


def test_dry_run_writes_nothing(run: Run) -> None:
    note = Note.objects.create(body="x")
    before = raw(note, "body")
    lifecycle.rotate()
    assert run("asherah_reencrypt", "testapp.Note.body", "--dry-run")["summary"]["rewritten"] == {
        "testapp.Note.body": 1
    }
    assert raw(note, "body") == before


def test_a_value_that_does_not_open_is_reported_and_left_as_it_is(run: Run) -> None:
    note, bad = Note.objects.create(body="x"), Note.objects.create(body="y")
    damaged = raw(bad, "body")[:-9]
    set_raw(bad, "body", damaged)
    lifecycle.rotate()
    document = run("asherah_reencrypt", "testapp.Note.body")
    assert document["code"] == 1
    assert document["problems"][0]["at"] == f"testapp.Note.body pk={bad.pk}"
    assert raw(bad, "body") == damaged
    assert key_of(note) == newest()


def test_neither_save_nor_signals_nor_auto_now() -> None:
    child = Child.objects.create(secret="s", child_secret="c")
    changed = Parent.objects.get().changed
    heard: list[Any] = []

    def listen(**kwargs: Any) -> None:
        heard.append(kwargs["sender"])

    pre_save.connect(listen)
    post_save.connect(listen)
    lifecycle.rotate()
    try:
        report = lifecycle.reencrypt()
    finally:
        pre_save.disconnect(listen)
        post_save.disconnect(listen)
    assert report.rewritten == {"testapp.Parent.secret": 1, "testapp.Child.child_secret": 1}
    assert heard == []
    assert Parent.objects.get().changed == changed
    read = Child.objects.get(pk=child.pk)
    assert (read.secret, read.child_secret) == ("s", "c")


def test_each_partition_has_its_own_newest_key() -> None:
    row = Tenancy.objects.create(left="l", left_too="l2", right="r", doc=1)
    lifecycle.rotate(partitions=["left"])
    report = lifecycle.reencrypt()
    assert report.rewritten == {"testapp.Tenancy.left": 1, "testapp.Tenancy.left_too": 1, "testapp.Tenancy.doc": 1}
    assert report.current == {"testapp.Tenancy.right": 1}
    assert key_of(row, "left") == newest("left")


def test_shards_cover_every_row_exactly_once() -> None:
    Parent.objects.bulk_create(Parent(secret="s") for _ in range(60))
    Note.objects.bulk_create(Note(body="x") for _ in range(60))
    lifecycle.rotate()
    done = [
        lifecycle.reencrypt(["testapp.Parent", "testapp.Note.body"], options=Options(shard=shard, shards=3)).rewritten
        for shard in range(3)
    ]
    assert sum(counter["testapp.Parent.secret"] for counter in done) == 60
    assert sum(counter["testapp.Note.body"] for counter in done) == 60
    assert all(counter["testapp.Note.body"] > 5 for counter in done)
    assert lifecycle.reencrypt(["testapp.Parent", "testapp.Note.body"]).rewritten == {}


@pytest.mark.parametrize("words", [("--shard", "0/3"), ("--shard", "4/3"), ("--shard", "x"), ("--batch", "0")])
def test_wrong_words_are_a_usage_error(run: Run, words: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        run("asherah_reencrypt", *words)


def test_the_rate_is_kept() -> None:
    Note.objects.bulk_create(Note(body="x") for _ in range(100))
    slept: list[float] = []
    lifecycle.reencrypt(
        ["testapp.Note.body"], options=Options(rate=10, batch=20, sleep=slept.append, clock=lambda: sum(slept))
    )
    assert sum(slept) == pytest.approx(10)


def test_an_interruption_loses_nothing_and_the_next_run_goes_on() -> None:
    Note.objects.bulk_create(Note(body=str(number)) for number in range(100))
    lifecycle.rotate()
    seen = 0

    def interrupt(count: int) -> None:
        nonlocal seen
        seen += count
        if seen >= 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lifecycle.reencrypt(["testapp.Note.body"], options=Options(batch=20), progress=interrupt)
    assert [note.body for note in Note.objects.order_by("pk")] == [str(number) for number in range(100)]
    report = lifecycle.reencrypt(["testapp.Note.body"])
    assert (report.rewritten["testapp.Note.body"], report.current["testapp.Note.body"]) == (60, 40)


def test_a_kms_that_fails_midway_stops_it_and_loses_nothing(settings: Any) -> None:
    note = Note.objects.create(body="x")
    settings.ASHERAH = {**settings.ASHERAH, "KMS_OPTIONS": {"key": "11" * 32}}
    before = raw(note, "body")
    with pytest.raises(KMSError):
        lifecycle.reencrypt(["testapp.Note.body"])
    assert raw(note, "body") == before


def test_a_concurrent_writer_always_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    note = Note.objects.create(body="old")
    lifecycle.rotate()
    field: Any = Note._meta.get_field("body")
    reseal = field.reseal

    def reseal_while_somebody_writes(value: str, *others: Any, **more: Any) -> str:
        sealed: str = reseal(value, *others, **more)
        if value == first:
            Note.objects.filter(pk=note.pk).update(body="new")
        return sealed

    first = raw(note, "body")
    field.reseal = reseal_while_somebody_writes
    try:
        report = lifecycle.reencrypt(["testapp.Note.body"])
    finally:
        del field.reseal
    assert report.conflicts == 1
    note.refresh_from_db()
    assert note.body == "new"


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite locks no rows")
def test_a_row_that_others_write_without_pause_is_rewritten_too() -> None:
    """Each time it was read, somebody writes it under the old key, until the row is held for the rewriting."""
    note = Note.objects.create(body="0")
    field: Any = Note._meta.get_field("body")
    under_the_old_key = [field.reseal(raw(note, "body")) for _ in range(100)]
    lifecycle.rotate()
    reseal = field.reseal
    written = []

    def write() -> None:
        try:
            with transaction.atomic():
                Note.objects.select_for_update(nowait=True).get(pk=note.pk)
                set_raw(note, "body", under_the_old_key[len(written)])
            written.append(raw(note, "body"))
        except OperationalError:
            pass  # Held: this writer will have to wait.
        finally:
            close_connections()

    def reseal_while_somebody_writes(value: str, *others: Any, **more: Any) -> str:
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        sealed: str = reseal(value, *others, **more)
        return sealed

    field.reseal = reseal_while_somebody_writes
    try:
        report = lifecycle.reencrypt(["testapp.Note.body"])
    finally:
        del field.reseal
    assert (report.bad, report.rewritten["testapp.Note.body"]) == ([], 1)
    assert report.conflicts == len(written) > 0
    assert key_of(note) == newest()


def test_a_record_that_differs_in_case_alone_is_another_record() -> None:
    from django_asherah.lifecycle.columns import encrypted_columns
    from django_asherah.lifecycle.swap import Swap, swap_values

    note = Note.objects.create(body="x")
    (column,) = encrypted_columns(["testapp.Note.body"])
    text = raw(note, "body")
    assert swap_values(connection, column, [Swap(note.pk, text.swapcase(), "wrong")]) == [note.pk]
    assert swap_values(connection, column, [Swap(note.pk, text + " ", "wrong")]) == [note.pk]
    assert raw(note, "body") == text


def insist(work: Any) -> Any:
    """Do ``work``, again while SQLite says that another thread of this process holds the table."""
    while True:
        try:
            return work()
        except (OperationalError, MetastoreError) as exc:
            if connection.vendor != "sqlite" or "locked" not in str(exc):
                raise


def test_writers_that_hammer_the_same_rows_lose_no_update() -> None:
    """Each writer counts its own row up; a lost update would leave the count behind."""
    rows = [Note.objects.create(body="0", other_body="0") for _ in range(6)]
    stop = threading.Event()
    written = [0] * len(rows)
    failures: list[Exception] = []

    def count_up(place: int) -> None:
        mine = Note.objects.filter(pk=rows[place].pk)
        try:
            while not stop.is_set() or written[place] < 5:
                insist(lambda: mine.update(body=str(written[place] + 1)))
                written[place] += 1
                assert insist(mine.get).body == str(written[place])
        except Exception as exc:
            failures.append(exc)
        finally:
            close_connections()

    threads = [threading.Thread(target=count_up, args=(place,)) for place in range(len(rows))]
    for thread in threads:
        thread.start()
    try:
        for _ in range(15):
            insist(lifecycle.rotate)
            insist(lambda: lifecycle.reencrypt(["testapp.Note"], options=Options(batch=3)))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert [note.body for note in Note.objects.order_by("pk")] == [str(count) for count in written]
    assert lifecycle.verify_data().bad.total == 0
