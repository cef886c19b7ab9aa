"""Others hold what a move or a re-encryption needs: it tries again, ends, and says which rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connections, models, transaction

from django_asherah import engine, lifecycle
from django_asherah.exceptions import DecryptionError, EncryptionError
from django_asherah.fields import EncryptedTextField
from django_asherah.lifecycle.conversion import decrypt_column, encrypt_column
from django_asherah.lifecycle.giving_way import TRIES, HeldError, insist
from django_asherah.lifecycle.ledger import Ledger
from django_asherah.lifecycle.progress import tell_nobody
from django_asherah.lifecycle.reencryption import Options, ReencryptionReport, _Rewriter
from tests.conversion.conftest import Table
from tests.conversion.test_encrypt import encrypted
from tests.databases import VENDOR, as_asherah, execute
from tests.leaks.search import errors_of, holding_frames, holds

pytestmark = pytest.mark.django_db(transaction=True)

Make = Callable[..., Table]

SECRET = "canary-900-12-3456"
locks_rows = pytest.mark.skipif(VENDOR == "sqlite", reason="SQLite locks no rows, but the whole database")
IMPATIENT: dict[str, dict[str, Any]] = {
    "postgresql": {"OPTIONS": {"options": "-c lock_timeout=30"}},
    "mysql": {"OPTIONS": {"init_command": "SET innodb_lock_wait_timeout = 1, lock_wait_timeout = 0"}},
    "sqlite": {},
}


@pytest.fixture
def alias(shared_alias: str, make_alias: Callable[..., str], settings: Any) -> str:
    """A connection that waits for hardly anything; the keys are elsewhere, as are the locks."""
    if VENDOR != "sqlite":
        return make_alias("impatient", **IMPATIENT[VENDOR])
    settings.ASHERAH = as_asherah(DATABASE=shared_alias)
    connections[shared_alias].close()
    connections.settings[shared_alias]["OPTIONS"] = {"timeout": 0.02}
    return shared_alias


@pytest.fixture
def hold(alias: str, make_alias: Callable[..., str]) -> Iterator[Callable[[str], Callable[[], None]]]:
    """Hold something by a statement of another connection; return what lets it go."""
    stack = ExitStack()

    def hold(statement: str) -> Callable[[], None]:
        other = make_alias("other_one", **{key: connections[alias].settings_dict[key] for key in ("NAME", "ENGINE")})
        stack.enter_context(transaction.atomic(using=other))
        execute(other, statement)
        return stack.close

    yield hold
    stack.close()


@contextmanager
def after_failures(alias: str, number: int, act: Callable[[], None]) -> Iterator[None]:
    """Act when the database has refused a statement for the ``number``th time."""
    failures = 0

    def count(execute_it: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal failures
        try:
            return execute_it(sql, params, many, context)
        except DatabaseError:
            failures += 1
            if failures == number:
                act()
            raise

    with connections[alias].execute_wrapper(count):
        yield


def shown_nowhere(error: BaseException) -> bool:
    return (
        [*errors_of(error)] == [error]
        and not holds(str(error), SECRET.encode())
        and not holding_frames(error, SECRET.encode())
    )


WRITE = {"sqlite": "UPDATE moved_thing SET secret = secret"}.get(
    VENDOR, "SELECT * FROM moved_thing WHERE id = 2 FOR UPDATE"
)


def filled(make_table: Make, field: Any) -> Table:
    engine.get_session().encrypt(b"so that the key is there")
    table = make_table(field)
    table.save("a", SECRET, "c")
    return table


def test_a_lock_that_is_let_go_in_time_costs_tries_and_nothing_else(make_table: Make, hold: Any) -> None:
    table = filled(make_table, models.TextField())
    table.state = encrypted(table)
    release = hold(WRITE)
    with after_failures(table.alias, TRIES - 1, release):
        assert encrypt_column(table.column) == 3
    assert table.values() == ["a", SECRET, "c"]


@locks_rows
@pytest.mark.parametrize("direction", ["encrypt", "decrypt"])
def test_a_row_that_stays_held_is_left_and_named_and_all_others_are_done(
    make_table: Make, hold: Any, direction: str
) -> None:
    convert: Any
    error: Any
    is_done: Callable[[str], bool]
    if direction == "encrypt":
        table = filled(make_table, models.TextField())
        table.state = encrypted(table)
        convert, error, is_done = encrypt_column, EncryptionError, is_record
    else:
        table = filled(make_table, EncryptedTextField())
        convert, error, is_done = decrypt_column, DecryptionError, lambda raw: not is_record(raw)
    before = table.raw()
    release = hold(WRITE)
    with pytest.raises(error, match="1 values could not be") as caught:
        convert(table.column)
    assert "pk=2: another transaction holds a lock, and the time to wait for it ran out" in str(caught.value)
    assert shown_nowhere(caught.value)
    assert [is_done(raw) for raw in table.raw()] == [True, False, True]
    assert table.raw()[1] == before[1]
    release()
    assert convert(table.column) == 1
    assert all(map(is_done, table.raw()))


@pytest.mark.skipif(VENDOR != "sqlite", reason="only SQLite is locked as a whole")
def test_a_database_that_stays_locked_ends_the_move_with_the_rows_named(make_table: Make, hold: Any) -> None:
    table = filled(make_table, models.TextField())
    table.state = encrypted(table)
    Ledger(table.column, "encrypt").create()
    release = hold("INSERT INTO testapp_note (title, body, other_body) VALUES ('x', 'x', 'x')")
    with pytest.raises(OperationalError, match="pk=1, pk=2, pk=3: the database is locked") as caught:
        encrypt_column(table.column)
    assert str(caught.value).startswith("moved.Thing.secret pk=1")
    assert shown_nowhere(caught.value)
    assert table.raw() == ["a", SECRET, "c"]
    release()
    assert encrypt_column(table.column) == 3


@locks_rows
def test_a_table_that_others_read_is_changed_once_they_let_it_go(make_table: Make, hold: Any) -> None:
    table = filled(make_table, models.CharField(max_length=50, db_index=True))
    release = hold("SELECT * FROM moved_thing")
    with pytest.raises(HeldError, match="the column's change to EncryptedTextField: another transaction") as caught:
        table.encrypt(EncryptedTextField())
    assert "moved.Thing.secret" in str(caught.value)
    assert shown_nowhere(caught.value)
    assert table.raw() == ["a", SECRET, "c"]
    with after_failures(table.alias, 2, release):
        table.encrypt(EncryptedTextField())
    assert table.values() == ["a", SECRET, "c"]


@locks_rows
def test_re_encryption_leaves_and_names_a_row_that_stays_held(make_table: Make, hold: Any) -> None:
    table = filled(make_table, EncryptedTextField())
    lifecycle.rotate()
    engine.get_session().encrypt(b"so that the key is there")
    release = hold(WRITE)
    for expected in ((2, 1), (1, 0)):
        report = ReencryptionReport()
        _Rewriter(table.column, Options(), report, tell_nobody).run()
        assert (report.rewritten.total(), report.bad.total) == expected
        if report.bad:
            assert (report.bad[0].pk, report.bad[0].reason.partition(",")[0]) == (
                "2",
                "another transaction holds a lock",
            )
        release()
    assert table.values() == ["a", SECRET, "c"]


def test_inside_the_callers_transaction_nothing_is_done_twice(alias: str) -> None:
    done = []

    def work() -> None:
        done.append(1)
        raise HeldError("this", "a deadlock", 1)

    with pytest.raises(HeldError, match="Tried 1 times"), transaction.atomic(using=alias):
        insist(alias, work, "that")
    assert done == [1]
    with pytest.raises(HeldError, match=f"that: a deadlock. Tried {TRIES} times"):
        insist(alias, work, "that")
    assert len(done) == 1 + TRIES


def is_record(raw: str) -> bool:
    return raw.startswith('{"Key":{')
