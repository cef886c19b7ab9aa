"""The connections over which the key table is reached: the caller's own, and private ones beside it.

Whatever a caller has done to its connection (a ``search_path``, a ``SET ROLE``, a ``USE``), the key table must be the
one that a new connection finds: keys are stored over new connections, and are opened for every caller of the process
alike.

A caller that is in a transaction holds a connection of the server, and a pooler has only so many: so it reads over
its own wherever that shows what a private one would show, and asks for a second one only to store a key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final, TypeVar, cast

from django.db import Error as DatabaseFailure
from django.db import InterfaceError, OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from django_asherah.deadlines import DeadlineError, Deadlines
from django_asherah.exceptions import MetastoreError
from django_asherah.metastores.inherited import ensure_own

T = TypeVar("T")
Work = Callable[[BaseDatabaseWrapper], T]

PRIVATE_DEADLINE = 10.0
"""Seconds in which a private connection must be had and its work be done."""

# psycopg's names for what a connection is in the midst of: libpq's PQtransactionStatus().
_IDLE, _ACTIVE, _IN_TRANSACTION = 0, 1, 2

# How long PostgreSQL waits for a lock, unless a limit is set: the caller's own transaction may hold it, and then the
# wait would never end.
_LOCK_TIMEOUT = "SELECT set_config('lock_timeout', '5s', true) WHERE current_setting('lock_timeout') = '0'"

# One statement at a time: with psycopg's prepare_threshold, several of them in one are an error.
_BACK_TO_SAVEPOINT = ("ROLLBACK TO SAVEPOINT asherah_keys", "RELEASE SAVEPOINT asherah_keys")

_AS_NEW = (
    "SET LOCAL SESSION AUTHORIZATION DEFAULT",
    "SET LOCAL role TO DEFAULT",
    "SET LOCAL search_path TO DEFAULT",
)

# A temporary table is the session's alone, and PostgreSQL looks there first unless it is told otherwise. Behind a
# pooler, it may be anybody's.
_TEMPORARY_LAST = """
    SELECT set_config('search_path', concat_ws(', ', NULLIF(current_setting('search_path'), ''), 'pg_temp'), true)
"""

# What a statement of the caller's transaction sees is all committed, and all that is committed, if each statement has a
# snapshot of its own and the transaction has not written to the table. If it has, it holds a lock on it until it ends.
# If it has altered the table, it has that of LOCK TABLE, and the table's description is as young as the transaction.
# That tells of plain tables alone. Where no locks are listed, not even those of this query, it is not known: NULL.
_SEES_WHAT_IS_COMMITTED: Final = """
    SELECT pg_current_xact_id_if_assigned() IS NULL
    OR (relkind = 'r' AND NOT EXISTS (SELECT 1 FROM pg_inherits WHERE inhparent = pg_class.oid)
    AND (SELECT bool_and(relation <> pg_class.oid OR mode <> 'RowExclusiveLock'
    AND NOT (mode = 'AccessExclusiveLock' AND age(pg_class.xmin) <= 0))
    FROM pg_locks WHERE locktype = 'relation' AND pid = pg_backend_pid()))
    FROM pg_class WHERE oid = to_regclass('encryption_key')
"""


def read_committed(shared: BaseDatabaseWrapper, work: Work[T]) -> T:
    """Return what ``work`` reads of what is committed, and on SQLite of what the caller's transaction has stored too.

    Raises:
        django.db.Error, MetastoreError: it can't be read.
    """
    if _would_wait_for_a_pool(shared) or _is_busy(shared):
        return privately(shared, work)
    if shared.vendor == "postgresql":
        return _read_on_postgresql(shared, work)
    if shared.vendor != "sqlite" and in_transaction(shared):
        return privately(shared, work)
    return _despite_a_lost_connection(shared, lambda shared: read_as_caller(shared, work))


def read_as_caller(shared: BaseDatabaseWrapper, work: Work[T]) -> T:
    """Return what ``work`` reads as the caller sees it, with what the caller's transaction has written itself.

    Raises:
        django.db.Error: it can't be read.
    """
    if _is_busy(shared) or (shared.vendor == "mysql" and _uses_another_database(shared)):
        return privately(shared, work)
    if shared.vendor != "postgresql":
        return work(shared)
    with as_new(shared) as borrowed:
        return work(borrowed)


def may_wait(shared: BaseDatabaseWrapper) -> bool:
    """Tell whether the caller may wait for what another thread reads: not if that one may wait for its connection."""
    return shared.vendor != "postgresql" or not in_transaction(shared)


def privately(shared: BaseDatabaseWrapper, work: Work[T]) -> T:
    """Return what ``work`` does over a private connection, which is committed.

    Raises:
        django.db.Error: it fails.
        MetastoreError: it was not done in time. It may yet be.
    """

    def do() -> T:
        with private_connection(shared) as private:
            return work(private)

    try:
        return _deadlines_of(shared.alias).within(PRIVATE_DEADLINE, do)
    except DeadlineError as exc:
        raise MetastoreError(
            f"{exc}. A second connection is needed for a moment, beside the one that the caller's transaction holds: "
            "does a pooler have none left? Give it room, or let ASHERAH['DATABASE'] name an alias that reaches the "
            "database beside the pooler"
        ) from exc


@contextmanager
def private_connection(shared: BaseDatabaseWrapper) -> Iterator[BaseDatabaseWrapper]:
    """Open a second connection to the same database, whose work is committed when the block ends."""
    own = shared.copy()
    own.settings_dict["AUTOCOMMIT"] = True
    options = own.settings_dict["OPTIONS"]
    # A pool that the callers' transactions have emptied would never give out the connection they wait for.
    options.pop("pool", None)
    if own.vendor == "sqlite":
        options["timeout"] = 0
    try:
        private = _begin(own) if own.vendor == "postgresql" else own
        yield private
        private.commit()
    finally:
        own.close()


@contextmanager
def as_new(shared: BaseDatabaseWrapper) -> Iterator[BaseDatabaseWrapper]:
    """Lend PostgreSQL's connection of ``shared`` out in the state of a new one; then all is as it was before.

    It is lent to a wrapper of its own, so that neither the statements nor their failures are the caller's.

    Raises:
        django.db.Error: the caller's transaction has failed, or the connection is lost.
    """
    ensure_own(shared)
    with shared.cursor():  # It was found healthy, and may be used here.
        pass
    borrowed = _lend(shared, autocommit=True)
    # Whoever has sent a BEGIN by hand is in a transaction as well. One that has yet to send a statement is in none.
    is_idle, autocommits = _status(shared) == _IDLE, cast(Any, shared.connection).autocommit
    try:
        if not is_idle:
            _send(shared, "SAVEPOINT asherah_keys")
        elif autocommits:
            _send(shared, "BEGIN")
        try:
            _make_new(borrowed)
            with _watched_as(shared, borrowed) if is_idle and autocommits else nullcontext():
                yield borrowed
        finally:
            _restore(shared, ("ROLLBACK",) if is_idle else _BACK_TO_SAVEPOINT)
    except (OperationalError, InterfaceError):
        shared.errors_occurred = True  # Then Django looks whether the connection is usable.
        raise
    finally:
        borrowed.connection = None


def _restore(shared: BaseDatabaseWrapper, statements: tuple[str, ...]) -> None:
    try:
        for statement in statements:
            _send(shared, statement)
    except DatabaseFailure:
        # The caller must never go on in a state that is ours: what it writes next could go to another's schema.
        cast(Any, shared.connection).close()


@contextmanager
def _watched_as(shared: BaseDatabaseWrapper, borrowed: BaseDatabaseWrapper) -> Iterator[None]:
    """Let the statements of this block be logged and counted as those of ``shared`` are."""
    names = ("queries_log", "force_debug_cursor", "execute_wrappers")
    own = {name: getattr(borrowed, name) for name in names}
    vars(borrowed).update({name: getattr(shared, name) for name in names})
    try:
        yield
    finally:
        vars(borrowed).update(own)


def in_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether a transaction is open, be it by a statement that was sent by hand."""
    if connection.in_atomic_block:
        return True
    if connection.vendor == "postgresql" and connection.connection is not None:
        return not cast(Any, connection.connection).autocommit or _status(connection) != _IDLE
    if connection.connection is None:
        return not connection.settings_dict["AUTOCOMMIT"]
    return not connection.get_autocommit() or getattr(connection.connection, "in_transaction", False)


def _read_on_postgresql(shared: BaseDatabaseWrapper, work: Work[T]) -> T:
    if not in_transaction(shared):
        return _despite_a_lost_connection(shared, lambda shared: read_as_caller(shared, work))
    try:
        if _has_a_snapshot_a_statement(shared):
            with as_new(shared) as borrowed:
                if _sees_what_is_committed(borrowed):
                    return work(borrowed)
    except DatabaseFailure:
        if _status(shared) in (_IDLE, _IN_TRANSACTION):
            raise
    return privately(shared, work)


def _has_a_snapshot_a_statement(shared: BaseDatabaseWrapper) -> bool:
    """Tell whether the caller's transaction is one that sees what was committed since its first query.

    In another, any query of ours would be that first one. SHOW is none.
    """
    if shared.connection is None or _status(shared) == _IDLE:
        return True  # It has yet to begin, and we read in one of our own.
    [(level,)] = _send(shared, "SHOW transaction_isolation")
    return level in ("read committed", "read uncommitted")


def _despite_a_lost_connection(shared: BaseDatabaseWrapper, work: Work[T]) -> T:
    try:
        ensure_own(shared)
        return work(shared)
    except (OperationalError, InterfaceError):
        if not _was_lost(shared):
            raise
        return work(shared)


def _was_lost(connection: BaseDatabaseWrapper) -> bool:
    """Drop a connection that the server has closed; tell whether trying again may help."""
    if connection.in_atomic_block or not connection.get_autocommit():
        return False
    connection.close_if_unusable_or_obsolete()
    return connection.connection is None


def _uses_another_database(shared: BaseDatabaseWrapper) -> bool:
    """Tell whether a ``USE`` has led MySQL's connection away from where a new one is, or may have."""
    with shared.cursor():  # It is open, and may be used here.
        pass
    return _send(shared, "SELECT DATABASE()") != [(shared.get_connection_params().get("database"),)]


def _would_wait_for_a_pool(shared: BaseDatabaseWrapper) -> bool:
    """Tell whether the caller has none of the connections of Django's pool: those who hold them may wait for it."""
    return shared.connection is None and bool(shared.settings_dict["OPTIONS"].get("pool"))


def _lend(owner: BaseDatabaseWrapper, *, autocommit: bool) -> BaseDatabaseWrapper:
    lent = owner.copy()
    lent.connection, lent.autocommit = owner.connection, autocommit
    return lent


def _make_new(borrowed: BaseDatabaseWrapper) -> None:
    """Undo what was set, by the driver alone: a backend that sets a ``search_path`` once only shall do so hereafter."""
    for statement in _AS_NEW:
        _send(borrowed, statement)
    role = borrowed.settings_dict["OPTIONS"].get("assume_role")
    if role:
        _send(borrowed, f"SET LOCAL ROLE {borrowed.ops.quote_name(role)}")
    _send(borrowed, _LOCK_TIMEOUT)
    connection_created.send(sender=type(borrowed), connection=borrowed)  # The project's own may set a search_path.
    with borrowed.cursor() as cursor:  # A backend's own may set the search_path.
        cursor.execute(_TEMPORARY_LAST)


def _sees_what_is_committed(borrowed: BaseDatabaseWrapper) -> bool:
    try:
        with borrowed.cursor() as cursor:
            cursor.execute(_SEES_WHAT_IS_COMMITTED)
            row = cursor.fetchone()
    except DatabaseFailure:  # Its functions may be forbidden, or not there: some servers are only like PostgreSQL.
        return False
    return bool(row and row[0])


def _is_busy(shared: BaseDatabaseWrapper) -> bool:
    """Tell whether PostgreSQL's connection is in a COPY, a stream or a pipeline: then it serves nothing else."""
    if shared.vendor != "postgresql" or shared.connection is None:
        return False
    libpq = getattr(shared.connection, "pgconn", None)  # psycopg2 has none, nor pipelines.
    return _status(shared) == _ACTIVE or bool(libpq and libpq.pipeline_status)


def _status(connection: BaseDatabaseWrapper) -> int:
    return int(cast(Any, connection.connection).info.transaction_status)


def _begin(own: BaseDatabaseWrapper) -> BaseDatabaseWrapper:
    # For this transaction only: behind a connection pooler, the session goes on to somebody else, and comes from
    # somebody who may have set it otherwise. A stricter isolation level would turn a race for the same new key into an
    # error.
    own.set_autocommit(False)
    private = _lend(own, autocommit=False)
    _send(private, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
    _make_new(private)
    return private


def _send(connection: BaseDatabaseWrapper, statement: str) -> list[tuple[Any, ...]]:
    """Send a statement by the driver alone, and return its rows: a backend's own cursors may set a ``search_path``."""
    with connection.wrap_database_errors, cast(Any, connection.connection).cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


_deadlines: dict[str, Deadlines] = {}


def _deadlines_of(alias: str) -> Deadlines:
    return _deadlines.setdefault(alias, Deadlines(f"the key table's database {alias!r}"))
