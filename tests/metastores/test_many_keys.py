"""Many keys at once in a database: the same contract as for one, on every backend."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from typing import Any

import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from django_asherah import engine
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta
from django_asherah.envelope.session import SessionFactory
from django_asherah.exceptions import EncryptionError, InvalidRecordError, MetastoreError
from django_asherah.metastores.database import DatabaseMetastore
from django_asherah.models import EncryptionKey
from tests.databases import VENDOR, as_asherah, execute, in_thread, record, run_django, url_of

pytestmark = pytest.mark.django_db(transaction=True)

TODAY = 1_795_478_400  # 2026-11-24T00:00:00Z
servers_only = pytest.mark.skipif(VENDOR == "sqlite", reason="SQLite lets one process write at a time")
sqlite_only = pytest.mark.skipif(VENDOR != "sqlite", reason="only on SQLite do keys share the caller's transaction")


@pytest.fixture
def metastore(alias: str) -> DatabaseMetastore:
    return DatabaseMetastore(alias)


def records_of(count: int, fill: int = 1) -> dict[KeyMeta, EnvelopeKeyRecord]:
    return {KeyMeta(f"_IK_{n}_s_p", TODAY + n % 3): record(TODAY + n % 3, fill, "_SK_s_p") for n in range(count)}


@pytest.mark.parametrize("atomic", [False, True])
def test_many_are_stored_and_loaded_again_equal(metastore: DatabaseMetastore, alias: str, atomic: bool) -> None:
    records = records_of(950)

    with transaction.atomic(using=alias) if atomic else nullcontext():
        assert metastore.store_many(records) == set(records)
        assert metastore.load_many(list(records)) == records

    assert metastore.load_many(list(records)) == records
    assert execute(alias, "SELECT COUNT(*) FROM encryption_key") == [(950,)]


@sqlite_only
def test_they_are_stored_with_one_statement_for_each_three_hundred(metastore: DatabaseMetastore, alias: str) -> None:
    with CaptureQueriesContext(connections[alias]) as queries:
        metastore.store_many(records_of(950))
    assert len(queries) == 4


@pytest.mark.parametrize("atomic", [False, True])
def test_of_many_those_that_another_stored_first_stand(metastore: DatabaseMetastore, alias: str, atomic: bool) -> None:
    theirs, ours = records_of(40, 1), records_of(700, 2)
    metastore.store_many(theirs)

    with transaction.atomic(using=alias) if atomic else nullcontext():
        assert metastore.store_many(ours) == ours.keys() - theirs.keys()
        assert execute(alias, "SELECT 1") == [(1,)]  # The caller's transaction is alive.

    assert metastore.load_many(list(ours)) == ours | theirs


def test_all_taken_stores_none(metastore: DatabaseMetastore) -> None:
    theirs = records_of(350, 1)
    metastore.store_many(theirs)
    assert metastore.store_many(records_of(350, 2)) == set()
    assert metastore.load_many(list(theirs)) == theirs


def test_none_are_stored_and_found_without_a_query(metastore: DatabaseMetastore, alias: str) -> None:
    with CaptureQueriesContext(connections[alias]) as queries:
        assert metastore.store_many({}) == set()
        assert metastore.load_latest_many([]) == {}
    assert len(queries) == 0


@pytest.mark.parametrize("atomic", [False, True])
def test_the_latest_of_many_are_found_with_one_query_for_each_four_hundred(
    metastore: DatabaseMetastore, alias: str, atomic: bool
) -> None:
    records = records_of(900) | {
        KeyMeta(f"_IK_{n}_s_p", TODAY + extra): record(TODAY + extra, 9, "_SK_s_p")
        for n in range(0, 900, 7)
        for extra in (-86_400, 60, 86_400)
    }
    metastore.store_many(records)
    newest = {meta.key_id: each for meta, each in sorted(records.items(), key=lambda item: item[0].created)}
    asked = [*newest, "_IK_none_s_p"]

    where = transaction.atomic(using=alias) if atomic else nullcontext()
    with CaptureQueriesContext(connections[alias]) as queries, where:
        assert metastore.load_latest_many(asked) == newest

    if not atomic:
        assert len(queries) == 3
    assert metastore.load_latest_many(asked[:3]) == {key_id: metastore.load_latest(key_id) for key_id in asked[:3]}


def test_a_latest_record_that_can_not_be_read_is_named(metastore: DatabaseMetastore, alias: str) -> None:
    metastore.store_many(records_of(5))
    execute(alias, "UPDATE encryption_key SET key_record = '{}' WHERE id = %s", ["_IK_3_s_p"])
    with pytest.raises(InvalidRecordError, match=f"^key _IK_3_s_p \\(latest\\) in database '{alias}'"):
        metastore.load_latest_many([f"_IK_{n}_s_p" for n in range(5)])


@pytest.mark.parametrize("one", ["Alice", "a ", "café", "o'brien", "50%", "back\\slash", "🗝"])
def test_ids_that_differ_in_one_byte_stay_apart(metastore: DatabaseMetastore, one: str) -> None:
    others = {"Alice": "alice", "a ": "a", "café": "cafe", "🗝": "🔑"}
    first, second = KeyMeta(f"_IK_{one}_s_p", TODAY), KeyMeta(f"_IK_{others.get(one, one * 2)}_s_p", TODAY)
    both = {first: record(TODAY, 1), second: record(TODAY, 2)}
    assert metastore.store_many(both) == {first, second}
    assert metastore.load_latest_many([first.key_id, second.key_id]) == {
        first.key_id: both[first],
        second.key_id: both[second],
    }


def test_one_that_does_not_fit_is_an_error_and_is_not_cut_off(metastore: DatabaseMetastore, alias: str) -> None:
    records = records_of(3)
    if VENDOR == "sqlite":
        execute(
            alias,
            "CREATE TRIGGER full BEFORE INSERT ON encryption_key WHEN NEW.id = '_IK_2_s_p' "
            "BEGIN SELECT RAISE(ABORT, 'too long'); END",
        )
    else:
        records[KeyMeta("_IK_" + "x" * 300, TODAY)] = record(TODAY)
    try:
        with pytest.raises(MetastoreError, match="too long"):
            metastore.store_many(records)
    finally:
        if VENDOR == "sqlite":
            execute(alias, "DROP TRIGGER full")
    assert execute(alias, "SELECT COUNT(*) FROM encryption_key") == [(0,)]


def make_factory(alias: str, **options: Any) -> SessionFactory:
    used = engine.get_factory()
    return SessionFactory(used.service, used.product, DatabaseMetastore(alias), used.kms, used.policy, **options)


NAMES = [f"tenant-{number}" for number in range(700)]


@servers_only
def test_threads_over_the_same_partitions_end_with_one_key_each(alias: str) -> None:
    make_factory(alias, clock=lambda: TODAY).current_keys(["first"])
    factories = [make_factory(alias, clock=lambda: TODAY) for _ in range(6)]
    orders = [NAMES, NAMES[::-1], NAMES[350:] + NAMES[:350], NAMES[100:], NAMES[::3], NAMES[::-2]]
    barrier = threading.Barrier(len(factories))

    def work(number: int) -> dict[str, bytes]:
        barrier.wait(30)
        try:
            return {name: key.record.key for name, key in factories[number].current_keys(orders[number]).items()}
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(factories)) as pool:
        results = [each.result(120) for each in [pool.submit(work, number) for number in range(len(factories))]]

    assert set(Counter(EncryptionKey.objects.using(alias).values_list("key_id", "created")).values()) == {1}
    assert EncryptionKey.objects.using(alias).count() == len(NAMES) + 2
    standing = results[0]
    for result, order in zip(results, orders, strict=True):
        assert result == {name: standing[name] for name in order}


PROCESS = """
import json
from django_asherah import engine
from django_asherah.envelope.session import SessionFactory
used = engine.get_factory()
factory = SessionFactory(used.service, used.product, used.metastore, used.kms, clock=lambda: {now})
names = json.loads(sys.argv[1])
engine.get_session("first")
keys = factory.current_keys(names)
print(json.dumps({{name: [factory.get_session(name).encrypt(name.encode(), key), key.meta.created]
                  for name, key in keys.items()}}))
"""


@servers_only
@pytest.mark.slow
def test_processes_over_the_same_partitions_end_with_one_key_each(alias: str) -> None:
    import json

    make_factory(alias, clock=lambda: TODAY).current_keys(["first"])
    orders = [NAMES, NAMES[::-1], NAMES[350:] + NAMES[:350]]
    code, url = PROCESS.format(now=TODAY), url_of(alias)
    with ThreadPoolExecutor(len(orders)) as pool:
        outputs = list(pool.map(lambda order: run_django(code, url, json.dumps(order)), orders))

    assert EncryptionKey.objects.using(alias).count() == len(NAMES) + 2
    reader = make_factory(alias, clock=lambda: TODAY)
    for output in outputs:
        for name, (sealed, created) in json.loads(output).items():
            assert created == TODAY
            assert reader.get_session(name).decrypt(sealed) == name.encode()


class TestTransactions:
    class Undone(Exception):  # noqa: N818 - nothing went wrong
        """Rolls a block back."""

    def make_and_undo(self, alias: str) -> dict[str, Any]:
        keys: dict[str, Any] = {}
        with suppress(self.Undone), transaction.atomic(using=alias):
            keys = engine.get_factory().current_keys(NAMES[:30])
            raise self.Undone
        return keys

    @pytest.fixture(autouse=True)
    def settings_of_alias(self, alias: str, settings: Settings) -> None:
        settings.ASHERAH = as_asherah(DATABASE=alias)

    @servers_only
    def test_keys_are_committed_at_once_whatever_becomes_of_the_callers_transaction(self, alias: str) -> None:
        keys = self.make_and_undo(alias)
        assert all(key.is_committed for key in keys.values())
        assert engine.get_factory().current_keys(NAMES[:30]) == keys
        assert EncryptionKey.objects.using(alias).count() == 31

    @sqlite_only
    def test_keys_go_with_the_transaction_on_sqlite_and_are_never_used_again(self, alias: str) -> None:
        undone = self.make_and_undo(alias)
        assert not any(key.is_committed for key in undone.values())
        assert EncryptionKey.objects.using(alias).count() == 0

        kept = engine.get_factory().current_keys(NAMES[:30])

        assert all(key.is_committed for key in kept.values())
        cold = make_factory(alias)
        for name, key in kept.items():
            assert undone[name].record.key != key.record.key
            assert cold.get_session(name).decrypt(engine.get_session(name).encrypt(b"x", key)) == b"x"

    def test_keys_that_a_transaction_keeps_are_there_afterwards(self, alias: str) -> None:
        with transaction.atomic(using=alias):
            keys = engine.get_factory().current_keys(NAMES[:30])
        assert engine.get_factory().current_keys(NAMES[:30]) == keys
        assert make_factory(alias).load_keys(key.meta for key in keys.values()).keys() == {
            key.meta for key in keys.values()
        }

    @sqlite_only
    def test_another_thread_does_not_see_them_before(self, alias: str, file_alias: str) -> None:
        with transaction.atomic(using=file_alias):
            keys = make_factory(file_alias).current_keys(NAMES[:3])
            metas = [key.meta for key in keys.values()]
            assert in_thread(lambda: DatabaseMetastore(file_alias).load_many(metas)) == {}
        assert len(in_thread(lambda: DatabaseMetastore(file_alias).load_many(metas))) == 3


def test_a_bad_partition_among_many_leaves_the_table_empty(alias: str) -> None:
    with pytest.raises(EncryptionError, match=r"'a\\x00b'"):
        make_factory(alias).current_keys([*NAMES[:10], "a\0b", *NAMES[10:]])
    assert EncryptionKey.objects.using(alias).count() == 0
