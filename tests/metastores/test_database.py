"""The database metastore keeps its contract on every backend."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime

import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from django_asherah import engine
from django_asherah.envelope.records import KeyMeta, decode_row, encode_key
from django_asherah.envelope.session import SessionFactory
from django_asherah.exceptions import InvalidRecordError
from django_asherah.metastores.database import DatabaseMetastore
from django_asherah.models import EncryptionKey
from tests.databases import VENDOR, as_asherah, execute, in_thread, record

DAY = 86_400
TODAY = 1_795_478_400  # 2026-11-24T00:00:00Z


@pytest.fixture
def metastore(alias: str) -> DatabaseMetastore:
    return DatabaseMetastore(alias)


def test_a_record_that_was_stored_is_loaded_again_equal(metastore: DatabaseMetastore) -> None:
    stored = record(TODAY, 7, "_SK_s_p", revoked=True)

    assert metastore.store("_IK_a_s_p", stored) is True
    assert metastore.load(KeyMeta("_IK_a_s_p", TODAY)) == stored
    assert metastore.load_latest("_IK_a_s_p") == stored


def test_what_was_never_stored_is_none(metastore: DatabaseMetastore) -> None:
    metastore.store("_IK_a_s_p", record(TODAY))

    assert metastore.load(KeyMeta("_IK_a_s_p", TODAY + 1)) is None
    assert metastore.load(KeyMeta("_IK_b_s_p", TODAY)) is None
    assert metastore.load_latest("_IK_b_s_p") is None


def test_the_latest_is_the_one_created_last_and_not_the_one_stored_last(metastore: DatabaseMetastore) -> None:
    for created in (TODAY, TODAY + 9 * DAY, TODAY + 10 * DAY, TODAY + DAY):
        metastore.store("_IK_a_s_p", record(created))
    metastore.store("_IK_other_s_p", record(TODAY + 99 * DAY))

    latest = metastore.load_latest("_IK_a_s_p")

    assert latest is not None
    assert latest.created == TODAY + 10 * DAY


@pytest.mark.skipif(VENDOR != "sqlite", reason="elsewhere, a column of times has one form of them")
@pytest.mark.parametrize("written", ["2026-11-24 01:00:00", "2026-11-24T00:00:00Z", "2026-11-24 00:00:00+00:00", "x"])
def test_a_last_row_that_its_name_does_not_find_is_no_key_to_write_under(
    metastore: DatabaseMetastore, written: str
) -> None:
    metastore.store("_IK_a_s_p", record(TODAY))
    execute(metastore.alias, "UPDATE encryption_key SET created = %s", [written])
    assert metastore.load(KeyMeta("_IK_a_s_p", TODAY)) is None

    for look in (lambda: metastore.load_latest("_IK_a_s_p"), lambda: metastore.load_latest_many(["_IK_a_s_p"])):
        with pytest.raises(InvalidRecordError, match=r"key _IK_a_s_p \(latest\) in database .* could be read: correct"):
            look()


@pytest.mark.parametrize("atomic", [False, True])
def test_many_are_loaded_with_one_query_for_each_four_hundred(
    metastore: DatabaseMetastore, alias: str, atomic: bool
) -> None:
    stored = {KeyMeta(f"_IK_{n}_s_p", TODAY + n % 3): record(TODAY + n % 3, n % 256, "_SK_s_p") for n in range(450)}
    EncryptionKey.objects.using(alias).bulk_create(
        EncryptionKey(
            key_id=meta.key_id,
            created=datetime.fromtimestamp(meta.created, UTC),
            key_record=json.loads(encode_key(each)),
        )
        for meta, each in stored.items()
    )
    others = [KeyMeta("_IK_0_s_p", TODAY + 1), KeyMeta("_IK_none_s_p", TODAY)]

    where = transaction.atomic(using=alias) if atomic else nullcontext()
    with CaptureQueriesContext(connections[alias]) as queries, where:
        assert metastore.load_many([*others, *stored, *others]) == stored
        assert metastore.load_many(others) == {}
        assert metastore.load_many([]) == {}

    if not atomic:  # What is missing is looked for a second time where sessions have time zones.
        assert len(queries) == (3 if VENDOR == "sqlite" else 6)


def test_of_many_a_broken_record_is_left_out(metastore: DatabaseMetastore, alias: str) -> None:
    good, bad = KeyMeta("_IK_a_s_p", TODAY), KeyMeta("_IK_b_s_p", TODAY)
    for meta in (good, bad):
        metastore.store(meta.key_id, record(TODAY))
    execute(alias, "UPDATE encryption_key SET key_record = '{}' WHERE id = %s", [bad.key_id])

    assert metastore.load_many([bad, good]) == {good: record(TODAY)}


@pytest.mark.parametrize("atomic", [False, True])
def test_whoever_stored_first_stands(metastore: DatabaseMetastore, alias: str, atomic: bool) -> None:
    first, second = record(TODAY, 1), record(TODAY, 2)
    metastore.store("_IK_a_s_p", first)

    if atomic:
        with transaction.atomic(using=alias):
            assert metastore.store("_IK_a_s_p", second) is False
            assert execute(alias, "SELECT 1") == [(1,)]  # The caller's transaction is alive.
    else:
        assert metastore.store("_IK_a_s_p", second) is False

    assert metastore.load(KeyMeta("_IK_a_s_p", TODAY)) == first
    assert execute(alias, "SELECT COUNT(*) FROM encryption_key") == [(1,)]


@pytest.mark.parametrize("created", [0, 1, 951_782_400, 2_147_483_647, 4_102_444_800, 253_402_300_799])
def test_created_is_kept_to_the_second_from_1970_to_9999(metastore: DatabaseMetastore, created: int) -> None:
    metastore.store("_SK_s_p", record(created))

    assert metastore.load(KeyMeta("_SK_s_p", created)) == record(created)
    assert metastore.load(KeyMeta("_SK_s_p", created - 1 if created else 1)) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Alice", "alice"),
        ("café", "cafe"),
        ("caf\u00e9", "cafe\u0301"),
        ("straße", "strasse"),
        ("a ", "a"),
        (" a", "a"),
        ("a  b", "a b"),
        ("a\t", "a"),
        ("ａ", "a"),
        ("日本", "日本語"),
        ("🗝", "🔑"),
        ("o'brien", "o''brien"),
        ("50%", "50%%"),
        ("back\\slash", "backslash"),
        ("a_b", "a-b"),
    ],
)
def test_partitions_that_differ_in_one_byte_have_rows_of_their_own(
    metastore: DatabaseMetastore, one: str, other: str
) -> None:
    first, second = f"_IK_{one}_s_p", f"_IK_{other}_s_p"
    metastore.store(first, record(TODAY, 1))

    assert metastore.load_latest(second) is None
    assert metastore.store(second, record(TODAY, 2)) is True
    assert metastore.load_latest(first) == record(TODAY, 1)
    assert metastore.load(KeyMeta(second, TODAY)) == record(TODAY, 2)


def test_an_id_of_255_characters_is_kept_whole(metastore: DatabaseMetastore) -> None:
    longest = f"_IK_{'🗝' * 247}_s_p"
    assert len(longest) == 255
    metastore.store(longest, record(TODAY))

    assert metastore.load_latest(longest) == record(TODAY)
    assert metastore.load_latest(longest[:-1]) is None


def test_a_wrapped_key_of_sixteen_kibibytes_is_kept_whole(metastore: DatabaseMetastore) -> None:
    biggest = record(TODAY).__class__(created=TODAY, key=bytes(range(256)) * 64)
    metastore.store("_SK_s_p", biggest)

    assert metastore.load_latest("_SK_s_p") == biggest


def test_reading_and_writing_outside_a_transaction_leaves_none_open(metastore: DatabaseMetastore, alias: str) -> None:
    metastore.store("_SK_s_p", record(TODAY))
    metastore.load_latest("_SK_s_p")

    assert connections[alias].get_autocommit() is True
    assert connections[alias].in_atomic_block is False


@pytest.mark.parametrize("atomic", [False, True])
def test_many_that_race_for_one_key_agree_on_it(shared_alias: str, settings: Settings, atomic: bool) -> None:
    """Each has a cache of its own, as processes have."""
    if VENDOR == "sqlite":  # Each locks the file a while.
        connections.settings[shared_alias]["OPTIONS"] = {"timeout": 30, "transaction_mode": "IMMEDIATE"}
    settings.ASHERAH = as_asherah(DATABASE=shared_alias)
    used, barrier = engine.get_factory(), threading.Barrier(16)

    def race() -> str:
        factory = SessionFactory(used.service, used.product, used.metastore, used.kms, used.policy)
        barrier.wait(30)
        if not atomic:
            return factory.get_session("p").encrypt(b"x")
        with transaction.atomic(using=shared_alias):
            return factory.get_session("p").encrypt(b"x")

    with ThreadPoolExecutor(16) as pool:
        futures = [pool.submit(in_thread, race) for _ in range(16)]
        records = [future.result(60) for future in futures]

    assert len({decode_row(record).key.parent_key_meta for record in records}) == 1
    assert [engine.get_session("p").decrypt(record) for record in records] == [b"x"] * 16
    assert execute(shared_alias, "SELECT COUNT(*) FROM encryption_key") == [(2,)]
