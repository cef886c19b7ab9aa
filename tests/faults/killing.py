"""Kill a process at every step of an operation, and see what stands.

Run as ``python -m tests.faults.killing OPERATION``: for N = 1, 2, 3 … a forked child does the operation and dies at
the N-th seam, until one lives through it. After each death a process that has seen nothing of it reads back what was
acknowledged, writes, does the operation again to its end and runs ``asherah_verify --data``. Prints how many died.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from itertools import count
from typing import Any

import django

django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection, connections, transaction  # noqa: E402
from django.test.utils import override_settings  # noqa: E402

from django_asherah import engine, lifecycle  # noqa: E402
from django_asherah.lifecycle.reencryption import Options  # noqa: E402
from tests.databases import as_asherah, execute  # noqa: E402
from tests.faults.seams import seams, watch_statements  # noqa: E402
from tests.testapp.models import Note  # noqa: E402

Tell = Callable[[str, int, str], None]

TABLES = ("encryption_key", "testapp_note")
MOST_SEAMS = 1000


def write(tell: Tell, text: str) -> int:
    pk = int(Note.objects.create(body=text, other_body=text).pk)
    tell("done", pk, text)
    return pk


def write_and_update(tell: Tell) -> None:
    pk = write(tell, "one")
    with transaction.atomic():
        others = [Note.objects.create(body="two", other_body="two").pk for _ in range(2)]
    for other in others:
        tell("done", other, "two")
    tell("trying", pk, "changed")
    Note.objects.filter(pk=pk).update(body="changed")
    tell("done", pk, "changed")


def write_in_one_transaction(tell: Tell) -> None:
    with transaction.atomic():
        pk = Note.objects.create(body="one", other_body="one").pk
    tell("done", pk, "one")


def write_some(tell: Tell) -> None:
    for number in range(3):
        write(tell, f"before {number}")


def write_and_rotate(tell: Tell) -> None:
    write_some(tell)
    lifecycle.rotate()


def rotate(tell: Tell) -> None:
    lifecycle.rotate()
    write(tell, "under the new key")


def revoke(tell: Tell) -> None:
    lifecycle.revoke("_SK_suite_tests")
    write(tell, "not under the revoked key")


def rewrap(tell: Tell) -> None:
    assert lifecycle.rewrap().failed == {}
    write(tell, "after the re-wrapping")


def reencrypt(tell: Tell) -> None:
    assert lifecycle.reencrypt(["testapp.Note"], options=Options(batch=2)).bad == []


def nothing(tell: Tell) -> None:
    """Leave both tables empty."""


# What stands before, and what is interrupted.
OPERATIONS: dict[str, tuple[Callable[[Tell], None], Callable[[Tell], None]]] = {
    "key creation": (nothing, write_and_update),
    "key creation in a transaction": (nothing, write_in_one_transaction),
    "rotation": (write_some, rotate),
    "revocation": (write_some, revoke),
    "re-wrap": (write_some, rewrap),
    "re-encryption": (write_and_rotate, reencrypt),
}


def main(name: str) -> None:
    """Kill and look, until a child lives."""
    prepare, operation = OPERATIONS[name]
    warm_up(operation)
    empty_tables()
    with one_region_down() if name == "re-wrap" else as_it_is():
        code, before = in_child(prepare)
    assert code == 0
    watch_statements()
    with saved_tables():
        for number in count(1):
            assert number < MOST_SEAMS
            restore_tables()
            code, during = in_child(operation, kill_at=number)
            assert code in (0, -signal.SIGKILL), code
            look_afterwards(operation, before + during, f"killed at seam {number}")
            if code == 0:
                print(number - 1)
                return


def warm_up(operation: Callable[[Tell], None]) -> None:
    """Import what is needed, so that no child has to. The keys are forgotten with the rows."""
    empty_tables()
    write_some(lambda *words: None)
    operation(lambda *words: None)
    verify()
    engine.reset()


def look_afterwards(operation: Callable[[Tell], None], told: list[list[Any]], when: str) -> None:
    """Let a fresh process judge what stands."""

    def look(tell: Tell) -> None:
        require_acknowledged(told)
        write(tell, "written afterwards")
        if operation is not rewrap:  # Until it is done, the region that the key lacks is a finding.
            verify()
        operation(tell)
        require_acknowledged(told)
        verify()

    code, _ = in_child(look)
    assert code == 0, when


def require_acknowledged(told: list[list[Any]]) -> None:
    """Every write that was acknowledged reads back; of one that was under way, the old value or the new."""
    allowed: dict[int, set[str]] = {}
    for word, pk, text in told:
        allowed[pk] = allowed.get(pk, set()) | {text} if word == "trying" else {text}
    for pk, texts in allowed.items():
        note = Note.objects.get(pk=pk)
        if note.body not in texts:
            raise AssertionError(f"{pk}: {note.body} is none of {texts}")


def verify() -> None:
    out = StringIO()
    try:
        call_command("asherah_verify", "--data", "testapp.Note", stdout=out, stderr=out)
    except SystemExit as exc:
        raise AssertionError(out.getvalue()) from exc


def in_child(work: Callable[[Tell], None], kill_at: int = 0) -> tuple[int, list[list[Any]]]:
    """Run ``work`` in a forked child with connections of its own; return its exit code and what it told."""
    connections.close_all()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        os._exit(live(work, writing, kill_at))
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = [json.loads(line) for line in pipe]
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), told


def live(work: Callable[[Tell], None], writing: int, kill_at: int) -> int:
    def tell(word: str, pk: int, text: str) -> None:
        seams.step()
        os.write(writing, json.dumps([word, pk, text]).encode() + b"\n")
        seams.step()

    try:
        seams.open(kill_at)
        work(tell)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def empty_tables() -> None:
    for table in TABLES:
        execute("default", f"DELETE FROM {table}")


@contextmanager
def saved_tables() -> Iterator[None]:
    """Keep a copy of both tables."""
    for table in TABLES:
        execute("default", f"CREATE TABLE saved_{table} AS SELECT * FROM {table}")
    try:
        yield
    finally:
        for table in TABLES:
            execute("default", f"DROP TABLE saved_{table}")


def restore_tables() -> None:
    with transaction.atomic():
        empty_tables()
        for table in TABLES:
            execute("default", f"INSERT INTO {table} SELECT * FROM saved_{table}")


@contextmanager
def as_it_is() -> Iterator[None]:
    yield


@contextmanager
def one_region_down() -> Iterator[None]:
    options = as_asherah()["KMS_OPTIONS"]
    with override_settings(ASHERAH=as_asherah(KMS_OPTIONS={**options, "down": ["two"]})):
        yield


if __name__ == "__main__":
    assert connection.settings_dict["NAME"]
    main(sys.argv[1])
