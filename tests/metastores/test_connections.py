"""Over which connection the key table is read, and in what state that is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from django.db import DatabaseError, connections, transaction
from django.db.backends.signals import connection_created

from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta
from django_asherah.exceptions import MetastoreError
from django_asherah.metastores.database import DatabaseMetastore
from tests.databases import VENDOR, execute, in_thread

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(VENDOR != "postgresql", reason="only on PostgreSQL is the caller's own connection lent out"),
]

CREATED = 1_700_000_040
OLD, NEW = KeyMeta("_SK_s_p", CREATED), KeyMeta("_SK_s_p", CREATED + 60)


def record(meta: KeyMeta) -> EnvelopeKeyRecord:
    return EnvelopeKeyRecord(created=meta.created, key=b"k" * 60)


@pytest.fixture
def metastore() -> DatabaseMetastore:
    found = DatabaseMetastore("default")
    assert found.store(OLD.key_id, record(OLD))
    return found


def store_elsewhere(meta: KeyMeta) -> None:
    """As another process does."""
    in_thread(lambda: DatabaseMetastore("default").store(meta.key_id, record(meta)))


@contextmanager
def no_connection_opened() -> Iterator[None]:
    """Require that none is opened in the block."""
    opened: list[Any] = []
    own = connections["default"]

    def note(connection: Any, **arguments: Any) -> None:
        if own.connection is None or connection.connection is not own.connection:
            opened.append(connection)

    connection_created.connect(note)
    try:
        yield
    finally:
        connection_created.disconnect(note)
    assert opened == []


def reads(metastore: DatabaseMetastore) -> dict[str, Any]:
    return {
        "load": metastore.load(OLD),
        "load_many": metastore.load_many([OLD, NEW]),
        "load_latest": metastore.load_latest(OLD.key_id),
        "load_latest_many": metastore.load_latest_many([OLD.key_id]),
    }


COPIED = "INSERT INTO encryption_key (id, created, key_record, row_id) SELECT '_SK_x', created, key_record, 0 FROM "
WAYS = {
    "a trigger": (
        (
            "CREATE TABLE source (id int); CREATE FUNCTION copied() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN {COPIED} encryption_key; RETURN NEW; END $$; "
            "CREATE TRIGGER copies AFTER INSERT ON source FOR EACH ROW EXECUTE FUNCTION copied()"
        ),
        "INSERT INTO source VALUES (1)",
        "DROP TABLE source; DROP FUNCTION copied",
    ),
    "a partition": (
        (
            "ALTER TABLE encryption_key RENAME TO part; CREATE TABLE encryption_key (LIKE part) "
            "PARTITION BY RANGE (created); "
            "ALTER TABLE encryption_key ATTACH PARTITION part DEFAULT"
        ),
        f"{COPIED} encryption_key",
        (
            "ALTER TABLE encryption_key DETACH PARTITION part; DROP TABLE encryption_key; "
            "ALTER TABLE part RENAME TO encryption_key"
        ),
    ),
    "a child": (
        "CREATE TABLE child () INHERITS (encryption_key)",
        f"{COPIED.replace('encryption_key', 'child')} encryption_key",
        "DROP TABLE child",
    ),
    "uncounted": (
        "SELECT 1",
        f"SET LOCAL track_counts = off; {COPIED} encryption_key; SET LOCAL track_counts = on",
        "SELECT 1",
    ),
    "a view": (
        "ALTER TABLE encryption_key RENAME TO hidden; CREATE VIEW encryption_key AS SELECT * FROM hidden",
        f"{COPIED} encryption_key",
        "DROP VIEW encryption_key; ALTER TABLE hidden RENAME TO encryption_key",
    ),
}
"""How to prepare the database, write an uncommitted copy of a key, and clean up."""


class TestInATransaction:
    @pytest.mark.parametrize("first", ["SELECT 1", "CREATE TEMPORARY TABLE written (id int)"])
    def test_no_second_connection_is_needed(self, metastore: DatabaseMetastore, first: str) -> None:
        with transaction.atomic(), no_connection_opened():
            execute("default", first)
            found = reads(metastore)
        assert found["load"] == found["load_latest"] == record(OLD)

    def test_a_key_that_is_made_meanwhile_is_seen(self, metastore: DatabaseMetastore) -> None:
        with transaction.atomic():
            assert metastore.load_latest(OLD.key_id) == record(OLD)
            store_elsewhere(NEW)
            with no_connection_opened():
                assert metastore.load_latest(OLD.key_id) == record(NEW)

    @pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
    def test_a_snapshot_hides_none(self, metastore: DatabaseMetastore, level: str) -> None:
        with transaction.atomic():
            execute("default", f"SET TRANSACTION ISOLATION LEVEL {level}")
            assert metastore.load_latest(OLD.key_id) == record(OLD)
            store_elsewhere(NEW)
            assert metastore.load_latest(OLD.key_id) == record(NEW)

    @pytest.mark.parametrize("is_released", [False, True])
    def test_what_it_has_written_to_the_table_itself_is_no_key(
        self, metastore: DatabaseMetastore, is_released: bool
    ) -> None:
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            execute("default", "SAVEPOINT inner_one")
            created = "2023-11-14 22:15:00+00"
            statement = "INSERT INTO encryption_key (id, created, key_record) SELECT %s, %s, key_record"
            execute("default", f"{statement} FROM encryption_key", ["_SK_s_p", created])
            execute("default", "UPDATE encryption_key SET key_record = '{}' WHERE created < %s", [created])
            if is_released:
                execute("default", "RELEASE SAVEPOINT inner_one")
            assert reads(metastore)["load_latest"] == reads(metastore)["load"] == record(OLD)
            raise ZeroDivisionError  # It rolls back, and what it wrote is gone.

    @pytest.mark.parametrize("way", WAYS)
    def test_by_whatever_way_it_has_written(self, metastore: DatabaseMetastore, way: str) -> None:
        prepare, write, clean_up = WAYS[way]
        execute("default", prepare)
        try:
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                with transaction.atomic():
                    execute("default", write)
                assert execute("default", "SELECT COUNT(*) FROM encryption_key WHERE id = '_SK_x'") == [(1,)]
                assert metastore.load_latest("_SK_x") is None
                assert metastore.load(OLD) == record(OLD)
                raise ZeroDivisionError
        finally:
            execute("default", clean_up)

    def test_a_table_that_it_has_changed_holds_no_keys(
        self, metastore: DatabaseMetastore, make_alias: Callable[..., str]
    ) -> None:
        alias = make_alias("altering", OPTIONS={"options": "-c lock_timeout=100ms"})
        with pytest.raises(ZeroDivisionError), transaction.atomic(using=alias):
            execute(alias, "ALTER TABLE encryption_key ALTER id TYPE varchar(255) USING '_SK_x'")
            with pytest.raises(MetastoreError, match="lock timeout"):
                DatabaseMetastore(alias).load_latest("_SK_x")
            raise ZeroDivisionError

    def test_what_its_session_has_committed_before_needs_no_second_connection(
        self, metastore: DatabaseMetastore
    ) -> None:
        with transaction.atomic():
            execute("default", f"{COPIED} encryption_key")
        with transaction.atomic(), no_connection_opened():
            execute("default", "CREATE TEMPORARY TABLE written (id int)")
            assert metastore.load(OLD) == record(OLD)

    @pytest.mark.parametrize("is_atomic", [False, True])
    def test_statements_that_are_prepared_at_once_leave_the_caller_its_state(
        self, metastore: DatabaseMetastore, make_alias: Callable[..., str], is_atomic: bool
    ) -> None:
        execute("default", "CREATE SCHEMA elsewhere")
        alias = make_alias("prepared", OPTIONS={"prepare_threshold": 0, "server_side_binding": True})
        try:
            execute(alias, "SET search_path = elsewhere")
            with transaction.atomic(using=alias) if is_atomic else nullcontext():
                execute(alias, "SELECT 1")
                assert DatabaseMetastore(alias).load(OLD) == record(OLD)
                assert execute(alias, "SHOW search_path") == [("elsewhere",)]
            assert execute(alias, "SHOW search_path") == [("elsewhere",)]
        finally:
            connections[alias].close()
            execute("default", "DROP SCHEMA elsewhere")

    def test_one_that_has_not_begun_is_not_begun(self, metastore: DatabaseMetastore) -> None:
        with transaction.atomic():
            assert metastore.load(OLD) == record(OLD)
            assert connections["default"].connection.info.transaction_status == 0  # type: ignore[union-attr]
            execute("default", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")

    def test_its_snapshot_is_taken_by_its_own_first_query(self, metastore: DatabaseMetastore) -> None:
        with transaction.atomic():
            execute("default", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            assert metastore.load(OLD) == record(OLD)
            store_elsewhere(NEW)
            assert execute("default", "SELECT COUNT(*) FROM encryption_key") == [(2,)]

    def test_one_whose_state_cannot_be_restored_is_ended(self, metastore: DatabaseMetastore) -> None:
        def release(connection: Any) -> None:
            with connection.cursor() as cursor:
                cursor.execute("RELEASE SAVEPOINT asherah_keys")  # As a receiver or a trigger of somebody's may.

        with pytest.raises(DatabaseError), transaction.atomic():
            execute("default", "SELECT 1")
            metastore._read(release)
            execute("default", "SELECT 1")

    def test_what_it_has_set_for_itself_stays(self, metastore: DatabaseMetastore) -> None:
        execute("default", "CREATE SCHEMA elsewhere")
        with transaction.atomic():
            execute("default", "SET LOCAL search_path = elsewhere; SET LOCAL lock_timeout = '7s'")
            before = execute("default", SHOW)
            assert metastore.load(OLD) == record(OLD)
            assert execute("default", SHOW) == before
        execute("default", "DROP SCHEMA elsewhere")

    def test_without_autocommit_nothing_is_ended(self, metastore: DatabaseMetastore) -> None:
        transaction.set_autocommit(False)
        try:
            assert metastore.load(OLD) == record(OLD)
            execute("default", "CREATE TABLE undone (id int)")
            assert metastore.load(OLD) == record(OLD)
            transaction.rollback()
        finally:
            transaction.set_autocommit(True)
        assert execute("default", "SELECT to_regclass('undone')") == [(None,)]

    def test_one_that_has_failed_still_reads(self, metastore: DatabaseMetastore) -> None:
        with pytest.raises(DatabaseError), transaction.atomic():
            with pytest.raises(DatabaseError):
                execute("default", "SELECT nothing")
            assert reads(metastore)["load"] == record(OLD)
            execute("default", "SELECT 1")

    def test_a_failure_of_ours_is_not_the_callers(self, metastore: DatabaseMetastore) -> None:
        execute("default", "ALTER TABLE encryption_key RENAME TO hidden")
        try:
            with transaction.atomic():
                execute("default", "SELECT 1")
                with pytest.raises(Exception, match="encryption_key"):
                    metastore.load(OLD)
                assert execute("default", "SELECT 2") == [(2,)]
        finally:
            execute("default", "ALTER TABLE hidden RENAME TO encryption_key")

    def test_one_that_was_begun_by_hand_goes_on(self, metastore: DatabaseMetastore) -> None:
        execute("default", "BEGIN")
        execute("default", "CREATE TABLE by_hand (id int)")
        assert not metastore.may_wait()
        assert reads(metastore)["load"] == record(OLD)
        assert execute("default", "SELECT COUNT(*) FROM by_hand") == [(0,)]
        execute("default", "ROLLBACK")
        with pytest.raises(DatabaseError, match="by_hand"):
            execute("default", "SELECT 1 FROM by_hand")

    def test_a_cursor_on_the_server_goes_on(self, metastore: DatabaseMetastore) -> None:
        with transaction.atomic(), connections["default"].chunked_cursor() as cursor:
            cursor.execute("SELECT * FROM generate_series(1, 5)")
            assert cursor.fetchmany(2) == [(1,), (2,)]
            assert reads(metastore)["load"] == record(OLD)
            assert cursor.fetchall() == [(3,), (4,), (5,)]

    def test_its_statements_are_not_the_callers(
        self, metastore: DatabaseMetastore, django_assert_num_queries: Any
    ) -> None:
        with transaction.atomic(), django_assert_num_queries(0):
            reads(metastore)


ROLE = f"asherah_{os.getpid()}"
"""Roles are of the server, and not of one database."""

STATES = {
    "a temporary table of its name": (
        "SELECT 1",
        "CREATE TEMPORARY TABLE encryption_key (LIKE encryption_key)",
        "SELECT 1",
    ),
    "search_path": ("CREATE SCHEMA elsewhere", "SET search_path = elsewhere", "DROP SCHEMA elsewhere CASCADE"),
    "a table of the same name": (
        "CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.encryption_key (LIKE encryption_key)",
        "SET search_path = elsewhere, public",
        "DROP SCHEMA elsewhere CASCADE",
    ),
    "SET ROLE": (f"CREATE ROLE {ROLE}", f"SET ROLE {ROLE}", f"DROP ROLE {ROLE}"),
    "SET SESSION AUTHORIZATION": (
        f"CREATE ROLE {ROLE}",
        f"SET SESSION AUTHORIZATION {ROLE}",
        f"DROP ROLE {ROLE}",
    ),
}
SHOW = "SELECT current_setting('search_path'), current_user, session_user, current_setting('lock_timeout')"


@pytest.mark.parametrize("is_atomic", [False, True])
class TestInTheMidstOfSomething:
    """The caller's connection serves nothing else before it has ended."""

    @pytest.fixture(autouse=True)
    def table(self, metastore: DatabaseMetastore) -> Iterator[None]:
        execute("default", "CREATE TABLE midst (id int)")
        yield
        execute("default", "DROP TABLE midst")

    def test_a_copy_goes_on(self, metastore: DatabaseMetastore, is_atomic: bool) -> None:
        with (
            transaction.atomic() if is_atomic else nullcontext(),
            connections["default"].cursor() as cursor,
            cursor.copy("COPY midst FROM STDIN") as copy,
        ):
            copy.write_row([1])
            assert reads(metastore)["load"] == record(OLD)
            assert [row.key_id for row in metastore.versions(OLD.key_id)] == [OLD.key_id]
            copy.write_row([2])
        assert execute("default", "SELECT id FROM midst ORDER BY id") == [(1,), (2,)]

    def test_a_stream_goes_on(self, metastore: DatabaseMetastore, is_atomic: bool) -> None:
        with transaction.atomic() if is_atomic else nullcontext(), connections["default"].cursor() as cursor:
            rows = cursor.stream("SELECT * FROM generate_series(1, 3)")
            assert next(rows) == (1,)
            assert reads(metastore)["load"] == record(OLD)
            assert list(rows) == [(2,), (3,)]

    def test_a_pipeline_goes_on(self, metastore: DatabaseMetastore, is_atomic: bool) -> None:
        own: Any = connections["default"].connection
        with (
            transaction.atomic() if is_atomic else nullcontext(),
            own.pipeline(),
            connections["default"].cursor() as cursor,
        ):
            cursor.execute("INSERT INTO midst VALUES (1)")
            assert reads(metastore)["load"] == record(OLD)
            cursor.execute("INSERT INTO midst VALUES (2)")
        assert execute("default", "SELECT id FROM midst ORDER BY id") == [(1,), (2,)]


@pytest.mark.parametrize("state", STATES)
class TestStateOfTheCallersConnection:
    """It neither hides the keys nor is it changed: what is stored over a new connection is read again."""

    @pytest.fixture
    def set_state(self, state: str, make_alias: Callable[..., str]) -> Iterator[Callable[[], None]]:
        prepare, change, clean_up = STATES[state]
        admin = make_alias("admin")
        execute(admin, prepare)
        try:
            yield lambda: execute("default", change) and None
        finally:
            connections["default"].close()
            execute(admin, clean_up)

    @pytest.mark.parametrize("is_atomic", [False, True])
    def test_keys_are_found_as_they_were_stored(
        self, metastore: DatabaseMetastore, set_state: Callable[[], None], is_atomic: bool
    ) -> None:
        set_state()
        before = execute("default", SHOW)
        with transaction.atomic() if is_atomic else no_connection_opened():
            assert metastore.store(NEW.key_id, record(NEW)) if is_atomic else True
            found = reads(metastore)
            assert found["load"] == record(OLD)
            assert found["load_latest"] == record(NEW if is_atomic else OLD)
            assert execute("default", SHOW) == before
        assert execute("default", SHOW) == before

    def test_the_lifecycle_sees_them_too(self, metastore: DatabaseMetastore, set_state: Callable[[], None]) -> None:
        set_state()
        assert [row.record() for row in metastore.scan()] == [record(OLD)]
        assert metastore.count() == 1
        row = metastore.read(OLD)
        assert row is not None
        assert metastore.replace(row, EnvelopeKeyRecord(revoked=True, created=OLD.created, key=b"k" * 60))
        found = metastore.load(OLD)
        assert found is not None
        assert found.revoked


def test_what_the_project_sets_on_each_new_connection_holds_for_the_keys_too(make_alias: Callable[..., str]) -> None:
    def choose_schema(connection: Any, **arguments: Any) -> None:
        if connection.alias == "chosen":
            with connection.cursor() as cursor:
                cursor.execute("SET search_path = chosen")

    execute("default", "CREATE SCHEMA chosen; CREATE TABLE chosen.encryption_key (LIKE encryption_key INCLUDING ALL)")
    connection_created.connect(choose_schema)
    try:
        alias = make_alias("chosen")
        metastore = DatabaseMetastore(alias)
        assert metastore.store(OLD.key_id, record(OLD))
        execute(alias, "SET search_path = public")
        assert metastore.load(OLD) == record(OLD)
        with transaction.atomic(using=alias):
            assert metastore.load(OLD) == record(OLD)
            assert execute(alias, "SHOW search_path") == [("public",)]
        assert DatabaseMetastore("default").load(OLD) is None
        connections[alias].close()
    finally:
        connection_created.disconnect(choose_schema)
        execute("default", "DROP SCHEMA chosen CASCADE")


@pytest.mark.parametrize("is_atomic", [False, True])
def test_a_role_that_djangos_settings_assume_is_the_keys_too(make_alias: Callable[..., str], is_atomic: bool) -> None:
    execute("default", f"CREATE ROLE {ROLE}; GRANT SELECT, INSERT ON encryption_key TO {ROLE}")
    execute("default", f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {ROLE}")
    alias = make_alias("assuming", OPTIONS={"assume_role": ROLE})
    try:
        metastore = DatabaseMetastore(alias)
        assert metastore.store(OLD.key_id, record(OLD))
        execute(alias, "RESET ROLE")
        seen: list[Any] = []
        with transaction.atomic(using=alias):
            assert metastore.load(OLD) == record(OLD)
        assert metastore._read(lambda connection: seen.append(_user(connection))) is None
        assert seen == [ROLE]
    finally:
        connections[alias].close()
        execute("default", f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


def test_where_it_cannot_be_told_what_is_committed_a_private_connection_serves(
    metastore: DatabaseMetastore, make_alias: Callable[..., str]
) -> None:
    function = "FUNCTION pg_current_xact_id_if_assigned()"
    execute("default", f"CREATE ROLE {ROLE} LOGIN; GRANT SELECT ON encryption_key TO {ROLE}")
    execute("default", f"REVOKE EXECUTE ON {function} FROM PUBLIC")
    alias = make_alias("forbidden", USER=ROLE)
    try:
        with transaction.atomic(using=alias):
            execute(alias, "SELECT 1")
            assert DatabaseMetastore(alias).load(OLD) == record(OLD)
            assert execute(alias, "SELECT 2") == [(2,)]
    finally:
        connections[alias].close()
        execute("default", f"GRANT EXECUTE ON {function} TO PUBLIC")
        execute("default", f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


def _user(connection: Any) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user")
        return str(cursor.fetchone()[0])
