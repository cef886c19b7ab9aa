"""Nothing is ever encrypted under a key whose row is not committed, or written by the transaction that writes the data.

Whoever reads cold here has opened no key before, as another process would: what only a cached key can read is lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connections, transaction
from django.db.backends.signals import connection_created
from django.test import Client, TestCase
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import Settings

from django_asherah import engine
from django_asherah.envelope.session import SessionFactory
from django_asherah.exceptions import EncryptionError, KeyNotFoundError, MetastoreError
from django_asherah.metastores.database import DatabaseMetastore
from django_asherah.models import EncryptionKey
from django_asherah.providers import Provider
from tests.databases import VENDOR, as_asherah, execute, in_thread, run_django, url_of
from tests.testapp.models import Note

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

sqlite_only = pytest.mark.skipif(VENDOR != "sqlite", reason="only on SQLite do keys share the caller's transaction")
postgresql_only = pytest.mark.skipif(VENDOR != "postgresql", reason="only PostgreSQL aborts a transaction")
servers_only = pytest.mark.skipif(VENDOR == "sqlite", reason="SQLite has no isolation levels to choose")


class Undone(Exception):  # noqa: N818 - nothing went wrong
    """Rolls a block back."""


@contextmanager
def rolled_back(alias: str) -> Iterator[None]:
    with suppress(Undone), transaction.atomic(using=alias):
        yield
        raise Undone


class OwnMetastore:
    """A metastore of somebody else's, in a database."""

    def __init__(self, alias: str) -> None:
        self._rows = DatabaseMetastore(alias)
        self.load, self.load_many, self.load_latest = self._rows.load, self._rows.load_many, self._rows.load_latest
        self.store, self.is_committed = self._rows.store, self._rows.is_committed


OWN = Provider(
    make=lambda settings, on_event: OwnMetastore(settings.database), find_database=lambda settings: settings.database
)


@pytest.fixture(autouse=True)
def cold_start() -> None:
    engine.reset()


def write(alias: str, text: str) -> int:
    return int(Note.objects.using(alias).create(body=text).pk)


def stored(alias: str) -> dict[int, str]:
    """Return every record as the database holds it, by primary key."""
    return dict(execute(alias, "SELECT id, body FROM testapp_note ORDER BY id"))


def cold_factory() -> SessionFactory:
    """Return a factory like the one in use, that has opened no key."""
    used = engine.get_factory()
    return SessionFactory(used.service, used.product, used.metastore, used.kms, used.policy)


def read_cold(record: str) -> str:
    return cold_factory().get_session("default").decrypt(record).decode()


def require_all_readable(alias: str) -> None:
    for pk, record in stored(alias).items():
        assert Note.objects.using(alias).get(pk=pk).body == read_cold(record)


def test_a_key_made_in_a_block_that_rolls_back_seals_nothing_afterwards(alias: str) -> None:
    with rolled_back(alias):
        write(alias, "undone")

    pk = write(alias, "kept")

    assert read_cold(stored(alias)[pk]) == "kept"
    assert list(stored(alias)) == [pk]


def test_a_key_made_in_a_savepoint_that_rolls_back_seals_nothing_afterwards(alias: str) -> None:
    with transaction.atomic(using=alias):
        with rolled_back(alias):
            write(alias, "undone")
        inside = write(alias, "kept inside")
    outside = write(alias, "kept outside")

    assert read_cold(stored(alias)[inside]) == "kept inside"
    assert read_cold(stored(alias)[outside]) == "kept outside"


def test_a_key_made_in_a_savepoint_is_lost_with_the_block_around_it(alias: str) -> None:
    with rolled_back(alias):
        with transaction.atomic(using=alias):
            write(alias, "released, then undone")
        write(alias, "undone")

    pk = write(alias, "kept")

    assert read_cold(stored(alias)[pk]) == "kept"


def test_a_key_rotated_in_a_block_that_rolls_back_seals_nothing_afterwards(alias: str) -> None:
    first = write(alias, "before")
    with rolled_back(alias):
        factory = engine.get_factory()
        factory.system_keys.rotate(factory.system_key_id)
        factory.intermediate_keys.rotate("_IK_default_suite_tests")
        write(alias, "undone")

    second = write(alias, "after")

    assert read_cold(stored(alias)[first]) == "before"
    assert read_cold(stored(alias)[second]) == "after"


def test_what_a_block_wrote_it_reads_itself_before_it_commits(alias: str) -> None:
    with transaction.atomic(using=alias):
        pk = write(alias, "within")
        assert Note.objects.using(alias).get(pk=pk).body == "within"
        engine.reset()
        assert Note.objects.using(alias).get(pk=pk).body == "within"

    assert read_cold(stored(alias)[pk]) == "within"


def test_a_record_from_a_block_that_rolled_back_is_refused_and_not_guessed(alias: str) -> None:
    with rolled_back(alias):
        record = engine.get_session().encrypt(b"undone")

    if VENDOR == "sqlite":  # Its key went with the block.
        with pytest.raises(KeyNotFoundError, match="_IK_default_suite_tests created"):
            engine.get_session().decrypt(record)
    else:
        assert engine.get_session().decrypt(record) == b"undone"


def test_commit_callbacks_that_a_test_runs_without_a_commit_change_nothing(alias: str) -> None:
    with rolled_back(alias), TestCase.captureOnCommitCallbacks(using=alias, execute=True):
        write(alias, "undone")

    pk = write(alias, "kept")

    assert read_cold(stored(alias)[pk]) == "kept"


def test_a_commit_callback_may_encrypt(alias: str) -> None:
    records: list[str] = []
    with transaction.atomic(using=alias):
        transaction.on_commit(lambda: records.append(engine.get_session().encrypt(b"on commit")), using=alias)
        write(alias, "within")

    assert [read_cold(record) for record in records] == ["on commit"]


def test_with_autocommit_off_a_rollback_takes_no_key_that_is_used_again(alias: str) -> None:
    transaction.set_autocommit(False, using=alias)
    try:
        write(alias, "undone")
        transaction.rollback(using=alias)
        pk = write(alias, "kept")
        transaction.commit(using=alias)
    finally:
        transaction.set_autocommit(True, using=alias)

    assert read_cold(stored(alias)[pk]) == "kept"
    assert list(stored(alias)) == [pk]


def test_a_begin_that_was_sent_by_hand_is_noticed(alias: str) -> None:
    execute(alias, "BEGIN")
    engine.get_session().encrypt(b"undone")
    execute(alias, "ROLLBACK")

    assert read_cold(engine.get_session().encrypt(b"kept")) == "kept"


def test_once_committed_a_key_is_trusted_without_another_look(alias: str) -> None:
    with transaction.atomic(using=alias):
        write(alias, "first")
    write(alias, "second")

    with transaction.atomic(using=alias), watched(alias) as statements:
        write(alias, "third")

    assert [statement for statement in statements if "encryption_key" in statement] == []


@sqlite_only
def test_only_a_key_of_unknown_origin_is_looked_for_from_outside(settings: Settings, file_alias: str) -> None:
    settings.ASHERAH = as_asherah(DATABASE=file_alias)
    opened: list[str] = []

    def note(connection: Any, **arguments: Any) -> None:
        opened.append(connection.alias)

    connection_created.connect(note)
    try:
        with transaction.atomic(using=file_alias):
            for number in range(5):
                write(file_alias, f"under a new key {number}")
        assert opened == []
        engine.reset()
        with transaction.atomic(using=file_alias):
            for number in range(5):
                write(file_alias, f"under a committed key {number}")
        assert opened == ["file", "file"]  # One look for the intermediate key, one for its system key.
    finally:
        connection_created.disconnect(note)


@contextmanager
def watched(alias: str) -> Iterator[list[str]]:
    statements: list[str] = []

    def note(execute: Callable[..., Any], sql: str, *arguments: Any) -> Any:
        statements.append(sql)
        return execute(sql, *arguments)

    with connections[alias].execute_wrapper(note):
        yield statements


STEPS = st.recursive(
    st.sampled_from(["write", "forget", "rotate"]),
    lambda steps: st.tuples(st.sampled_from(["commit", "roll back"]), st.lists(steps, min_size=1, max_size=4)),
    max_leaves=10,
)


@hypothesis_settings(
    max_examples=60 if VENDOR == "sqlite" else 25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(program=st.lists(STEPS, min_size=1, max_size=6))
def test_whatever_is_written_rolled_back_rotated_and_forgotten_every_row_that_stands_is_readable(
    alias: str, program: list[Any]
) -> None:
    execute(alias, "DELETE FROM testapp_note")
    execute(alias, "DELETE FROM encryption_key")
    engine.reset()
    for step in program:
        perform(alias, step)
        require_all_readable(alias)


def perform(alias: str, step: Any) -> None:
    match step:
        case "write":
            write(alias, "a text")
            require_all_readable(alias)
        case "forget":
            engine.get_factory().clear()
        case "rotate":
            engine.get_factory().intermediate_keys.rotate("_IK_default_suite_tests")
        case ("commit", steps):
            with transaction.atomic(using=alias):
                perform_all(alias, steps)
        case ("roll back", steps):
            with rolled_back(alias):
                perform_all(alias, steps)


def perform_all(alias: str, steps: list[Any]) -> None:
    for step in steps:
        perform(alias, step)


@pytest.mark.slow
class TestAnotherProcess:
    """Real ones."""

    READ = "from tests.testapp.models import Note; print(Note.objects.get(pk=sys.argv[1]).body)"

    @pytest.fixture
    def shared(self, shared_alias: str, settings: Settings) -> str:
        settings.ASHERAH = as_asherah(DATABASE=shared_alias)
        return shared_alias

    def test_it_reads_what_was_written_after_a_rollback(self, shared: str) -> None:
        with rolled_back(shared):
            write(shared, "undone")
        pk = write(shared, "after a rollback")

        assert run_django(self.READ, url_of(shared), str(pk)) == "after a rollback"

    def test_it_reads_what_a_block_wrote_with_a_key_of_its_own(self, shared: str) -> None:
        with transaction.atomic(using=shared):
            with rolled_back(shared):
                write(shared, "undone")
            pk = write(shared, "from a block")

        assert run_django(self.READ, url_of(shared), str(pk)) == "from a block"

    def test_we_read_what_it_wrote(self, shared: str) -> None:
        write(shared, "ours")
        code = "from tests.testapp.models import Note; print(Note.objects.create(body='theirs').pk)"

        pk = run_django(code, url_of(shared))

        assert Note.objects.using(shared).get(pk=pk).body == "theirs"
        assert EncryptionKey.objects.using(shared).count() == 2


class TestAtomicRequests:
    @pytest.fixture(autouse=True)
    def atomic_requests(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)

    def test_a_view_that_fails_takes_no_key_that_is_used_again(self) -> None:
        client = Client(raise_request_exception=False)
        assert client.post("/notes/create-and-fail/", {"body": "undone"}).status_code == 500

        response = client.post("/notes/create/", {"body": "kept"})

        assert response.status_code == 200
        assert list(stored("default")) == [int(response.content)]
        assert read_cold(stored("default")[int(response.content)]) == "kept"

    def test_requests_that_succeed_and_fail_in_turns_lose_nothing(self) -> None:
        client = Client(raise_request_exception=False)
        for number in range(4):
            client.post("/notes/create-and-fail/", {"body": "undone"})
            client.post("/notes/create/", {"body": f"kept {number}"})
            engine.get_factory().clear()

        assert [read_cold(record) for record in stored("default").values()] == [f"kept {n}" for n in range(4)]


class TestDataInAnotherDatabase:
    """A rollback of the keys' database does not take the data along."""

    @pytest.fixture(autouse=True)
    def other_table(self, settings: Settings) -> None:
        settings.ASHERAH = as_asherah(DATABASE="default")

    @servers_only
    def test_a_server_keeps_the_key_that_the_data_needs(self) -> None:
        with rolled_back("default"):
            pk = write("other", "kept")

        assert read_cold(stored("other")[pk]) == "kept"

    @sqlite_only
    def test_a_metastore_of_somebody_elses_is_believed_which_database_it_is_in(self, settings: Settings) -> None:
        settings.ASHERAH = as_asherah(METASTORE=f"{__name__}.OWN")

        with rolled_back("default"), pytest.raises(EncryptionError, match="is not committed in database 'default' yet"):
            write("other", "lost if it were written")

        assert stored("other") == {}

    @sqlite_only
    @pytest.mark.parametrize("keys", ["default", "file"])
    def test_sqlite_refuses_data_that_would_outlive_a_new_key(
        self, keys: str, settings: Settings, file_alias: str
    ) -> None:
        settings.ASHERAH = as_asherah(DATABASE=keys)

        with rolled_back(keys), pytest.raises(EncryptionError) as caught:
            write("other", "lost if it were written")

        assert "testapp.Note.body: " in str(caught.value)
        assert f"is not committed in database '{keys}' yet" in str(caught.value)
        assert "leave the atomic block of" in str(caught.value)
        assert "lost if" not in str(caught.value)
        assert stored("other") == {}

    @sqlite_only
    def test_sqlite_refuses_data_under_a_key_that_was_rotated_in_the_block(
        self, settings: Settings, file_alias: str
    ) -> None:
        settings.ASHERAH = as_asherah(DATABASE=file_alias)
        write("other", "kept")

        with rolled_back(file_alias):
            engine.get_factory().intermediate_keys.rotate("_IK_default_suite_tests")
            with pytest.raises(EncryptionError, match="is not committed in database 'file' yet"):
                write("other", "lost if it were written")

    @sqlite_only
    def test_sqlite_takes_data_under_a_key_that_others_see_already(self, settings: Settings, file_alias: str) -> None:
        settings.ASHERAH = as_asherah(DATABASE=file_alias)
        engine.get_session().encrypt(b"makes the key")
        engine.reset()

        with rolled_back(file_alias):
            Note.objects.using(file_alias).create(body="undone")
            pk = write("other", "kept")

        assert read_cold(stored("other")[pk]) == "kept"

    @sqlite_only
    def test_in_memory_a_key_in_hand_serves_inside_a_block(self) -> None:
        engine.get_session().encrypt(b"makes the key")

        with rolled_back("default"):
            pk = write("other", "kept")

        assert read_cold(stored("other")[pk]) == "kept"

    def test_outside_a_block_nothing_is_refused(self) -> None:
        pk = write("other", "kept")

        assert read_cold(stored("other")[pk]) == "kept"

    def test_a_block_of_the_datas_database_refuses_nothing(self) -> None:
        with rolled_back("other"):
            write("other", "undone")
        pk = write("other", "kept")

        assert read_cold(stored("other")[pk]) == "kept"


@postgresql_only
def test_an_aborted_transaction_can_still_encrypt_and_decrypt(alias: str) -> None:
    before = engine.get_session().encrypt(b"before")
    engine.reset()
    with rolled_back(alias):
        with suppress(DatabaseError):
            execute(alias, "SELECT nonsense")
        assert engine.get_session().decrypt(before) == b"before"
        within = engine.get_session("another").encrypt(b"within")

    assert cold_factory().get_session("another").decrypt(within) == b"within"


@sqlite_only
def test_in_a_broken_block_sqlite_gives_an_error_and_no_key(alias: str) -> None:
    with rolled_back(alias):
        transaction.set_rollback(True, using=alias)
        with pytest.raises(MetastoreError, match="TransactionManagementError"):
            engine.get_session().encrypt(b"x")

    assert read_cold(engine.get_session().encrypt(b"kept")) == "kept"


@servers_only
def test_a_snapshot_that_is_older_than_a_key_does_not_hide_it(
    make_alias: Callable[..., str], settings: Settings
) -> None:
    level: Any = "repeatable read"
    if VENDOR == "postgresql":
        from django.db.backends.postgresql.psycopg_any import IsolationLevel

        level = IsolationLevel.REPEATABLE_READ
    alias = make_alias("snapshot", OPTIONS={"isolation_level": level})
    settings.ASHERAH = as_asherah(DATABASE=alias)

    with transaction.atomic(using=alias):
        assert EncryptionKey.objects.using(alias).count() == 0
        theirs = in_thread(lambda: cold_factory().get_session("default").encrypt(b"theirs"))
        assert EncryptionKey.objects.using(alias).count() == 0
        assert engine.get_session().decrypt(theirs) == b"theirs"
        engine.reset()
        pk = write(alias, "under their key")

    assert EncryptionKey.objects.using(alias).count() == 2
    assert read_cold(stored(alias)[pk]) == "under their key"


@sqlite_only
class TestThreadsOnOneFile:
    @pytest.fixture(autouse=True)
    def keys_in_file(self, settings: Settings, file_alias: str) -> None:
        settings.ASHERAH = as_asherah(DATABASE=file_alias)

    def test_a_key_that_is_not_committed_serves_no_other_thread(self) -> None:
        with rolled_back("file"):
            pending = engine.get_session().encrypt(b"undone")
            with pytest.raises(MetastoreError, match="database is locked"):
                in_thread(lambda: engine.get_session().encrypt(b"x"))
            with pytest.raises(KeyNotFoundError):
                in_thread(lambda: engine.get_session().decrypt(pending))
            assert engine.get_session().decrypt(pending) == b"undone"

        theirs = in_thread(lambda: engine.get_session().encrypt(b"theirs"))
        assert read_cold(theirs) == "theirs"
        assert engine.get_session().decrypt(theirs) == b"theirs"

    def test_a_reader_in_another_thread_settles_no_key_for_the_one_that_rolls_back(self) -> None:
        written, checked = threading.Event(), threading.Event()

        def look() -> None:
            assert written.wait(30)
            for _ in range(3):
                with suppress(MetastoreError):
                    engine.get_session().encrypt(b"x")
            checked.set()

        thread = threading.Thread(target=lambda: in_thread(look))
        thread.start()
        with rolled_back("file"):
            write("file", "undone")
            written.set()
            assert checked.wait(30)
            write("file", "undone too")
        thread.join()

        pk = write("file", "kept")
        assert read_cold(stored("file")[pk]) == "kept"


class TestFlush:
    def test_a_flush_takes_the_opened_keys_along(self) -> None:
        write("default", "flushed")
        held = engine.get_session()

        call_command("flush", interactive=False, verbosity=0)

        pk = write("default", "kept")
        assert read_cold(stored("default")[pk]) == "kept"
        assert read_cold(held.encrypt(b"from a session that was held")) == "from a session that was held"
