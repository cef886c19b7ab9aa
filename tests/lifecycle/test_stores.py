"""Every command and function of the keys' life, on every kind of metastore."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from django.db import connection

from django_asherah import engine, lifecycle
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, decode_row
from django_asherah.exceptions import KeyNotFoundError, MetastoreError
from django_asherah.lifecycle import KeyState
from django_asherah.lifecycle.context import get_context
from django_asherah.metastores.memory import MemoryMetastore
from django_asherah.metastores.sql import INSERT, created_literal
from tests.databases import execute
from tests.lifecycle import stores
from tests.lifecycle.conftest import Run
from tests.lifecycle.stores import ARNS, BASE, ListingMetastore, OwnMetastore, WholeMetastore
from tests.moto_servers import ACCESS, MotoRegion, dynamodb_table

SK_ID, LEFT_ID, RIGHT_ID = "_SK_suite_tests", "_IK_left_suite_tests", "_IK_right_suite_tests"
DAY = 24 * 60 * 60
DRIFT_GUARD = "__asherah_internal_config_drift_guard_v1__:abc"

in_database = pytest.param("database", marks=pytest.mark.django_db(transaction=True))
in_dynamodb = pytest.param("dynamodb", marks=pytest.mark.slow)
kinds = pytest.mark.parametrize("store", [in_database, in_dynamodb, "memory", "own"], indirect=True)
kinds_that_hold_anything = pytest.mark.parametrize("store", [in_database, in_dynamodb, "own"], indirect=True)


class Store:
    """A metastore under test, and the settings that choose it."""

    def __init__(self, kind: str, settings: Any, **chosen: Any) -> None:
        self.kind, self._settings, self._chosen = kind, settings, chosen
        self.client: Any = None

    def configure(self, arns: dict[str, str] = ARNS, down: tuple[str, ...] = (), **changes: Any) -> None:
        """Use a KMS that pretends to have these regions; or another one, if ``changes`` says so."""
        kms = {
            "KMS": "tests.regional.PretendedAws",
            "KMS_OPTIONS": {"arns": arns, "down": set(down)},
        }
        self._settings.ASHERAH = {**BASE, **kms, **self._chosen, **changes}

    def put_broken(self, key_id: str, created: int) -> None:
        """Put in a row that is no key record."""
        if self.kind == "database":
            execute("default", INSERT, [key_id, created_literal(connection, created), '{"a": 1}'])
        elif self.kind == "own":
            stores.current.texts[KeyMeta(key_id, created)] = '{"a": 1}'
        else:
            item = {"Id": {"S": key_id}, "Created": {"N": str(created)}, "KeyRecord": {"M": {"a": {"N": "1"}}}}
            self.client.put_item(TableName="EncryptionKey", Item=item)


@pytest.fixture
def store(request: pytest.FixtureRequest, settings: Any) -> Iterator[Store]:
    """One of every kind. Only the first may ask the database for anything."""
    with _make_store(request, settings) as made:
        made.configure()
        yield made


@contextmanager
def _make_store(request: pytest.FixtureRequest, settings: Any) -> Iterator[Store]:
    if request.param == "database":
        yield Store("database", settings, METASTORE="database")
    elif request.param == "dynamodb":
        west: MotoRegion = request.getfixturevalue("west")
        session: Any = boto3.Session
        options = {"region": west.region, "endpoint_url": west.url, "session": session(**ACCESS)}
        with dynamodb_table(west) as client:
            made = Store("dynamodb", settings, METASTORE="dynamodb", METASTORE_OPTIONS=options)
            made.client = client
            yield made
    else:
        metastore = MemoryMetastore() if request.param == "memory" else WholeMetastore()
        yield Store(request.param, settings, **stores.use(metastore))


def write(partition: str) -> str:
    return engine.get_session(partition).encrypt(partition.encode())


def key_of(text: str) -> KeyMeta:
    return decode_row(text).key.parent_key_meta


def put(key_id: str, created: int, **members: Any) -> KeyMeta:
    assert engine.get_factory().metastore.store(key_id, EnvelopeKeyRecord(created=created, key=bytes(60), **members))
    return KeyMeta(key_id, created)


def require_opens(*texts: str) -> None:
    engine.reset()
    for text in texts:
        partition = key_of(text).key_id.removeprefix("_IK_").removesuffix("_suite_tests")
        assert engine.get_session(partition).decrypt(text) == partition.encode()


@kinds
class TestListing:
    def test_by_id_and_each_ids_newest_first(self, store: Store) -> None:
        now = int(time.time())
        times = [now - 100, now - 91 * DAY, now - 300, now - 200, now - 400]
        for created in times:
            put(SK_ID, created, revoked=created == now - 300)
        for name in ("b", "a", "c"):
            put(f"_IK_{name}_suite_tests", now - 60, parent_key_meta=KeyMeta(SK_ID, now - 100))

        listing = lifecycle.list_keys()

        assert [(key.meta.key_id, key.meta.created, key.state) for key in listing] == [
            ("_IK_a_suite_tests", now - 60, KeyState.CURRENT),
            ("_IK_b_suite_tests", now - 60, KeyState.CURRENT),
            ("_IK_c_suite_tests", now - 60, KeyState.CURRENT),
            (SK_ID, now - 100, KeyState.CURRENT),
            (SK_ID, now - 200, KeyState.SUPERSEDED),
            (SK_ID, now - 300, KeyState.REVOKED),
            (SK_ID, now - 400, KeyState.SUPERSEDED),
            (SK_ID, now - 91 * DAY, KeyState.EXPIRED),
        ]
        assert listing.total() == 8

    def test_status(self, store: Store, run: Run) -> None:
        assert run("asherah_status")["items"] == []
        write("left")
        write("right")
        put("_SK_other_product", 60)
        put("_IK_p_other_product", 60, parent_key_meta=KeyMeta("_SK_other_product", 60))
        put(DRIFT_GUARD, 946684800)

        document = run("asherah_status")

        assert document["code"] == 0
        assert document["summary"]["keys"] == {"intermediate current": 2, "system current": 1}
        assert (document["summary"]["keys_of_others"], document["summary"]["other_rows"]) == (2, 1)
        assert [item["partition"] for item in document["items"]] == ["left", "right", None]
        assert document["items"][2]["regions"] == ARNS

    def test_a_single_key_and_those_under_it(self, store: Store) -> None:
        system = key_of(write("left"))
        table, (parent,) = get_context().table, [key.meta for key in lifecycle.list_keys() if not key.parent]
        other = put("_IK_other_suite_tests", 60, parent_key_meta=KeyMeta(SK_ID, 60))

        row = table.read(system)

        assert row is not None
        assert row.record().parent_key_meta == parent
        assert table.read(KeyMeta(LEFT_ID, 60)) is None
        assert [row.key_id for row in table.children(parent)] == [LEFT_ID]
        assert [row.key_id for row in table.children(KeyMeta(SK_ID, 60))] == [other.key_id]
        assert list(table.children(KeyMeta("_SK_nobody", 60))) == []


@kinds
class TestRotate:
    def test_new_keys_for_every_partition_and_old_data_stays_readable(self, store: Store, run: Run) -> None:
        old = [write("left"), write("right")]

        document = run("asherah_rotate")

        assert (document["code"], document["summary"]["system_keys"]) == (0, 1)
        assert document["summary"]["intermediate_keys"] == 2
        made = {(item["key_id"], item["created"]) for item in document["items"]}
        new = [write("left"), write("right")]
        assert {(key_of(text).key_id, key_of(text).created) for text in new} < made
        require_opens(*old, *new)
        newest = {key.meta.key_id: key for key in reversed(list(lifecycle.list_keys()))}
        assert newest[LEFT_ID].parent == newest[RIGHT_ID].parent == newest[SK_ID].meta

    def test_only_what_is_due(self, store: Store, run: Run) -> None:
        write("left")
        write("right")
        assert run("asherah_rotate", "--expired")["items"] == []
        lifecycle.revoke(LEFT_ID)
        assert [item["key_id"] for item in run("asherah_rotate", "--expired")["items"]] == [LEFT_ID]
        lifecycle.revoke(SK_ID)
        assert [item["key_id"] for item in run("asherah_rotate", "--expired")["items"]] == [SK_ID, LEFT_ID, RIGHT_ID]
        assert run("asherah_rotate", "--expired")["items"] == []

    def test_an_interrupted_rotation_is_continued(self, store: Store, run: Run) -> None:
        write("left")
        write("right")

        def interrupt(count: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            lifecycle.rotate(batch=1, progress=interrupt)
        assert [item["key_id"] for item in run("asherah_rotate", "--resume")["items"]] == [RIGHT_ID]

    def test_dry_run_makes_nothing(self, store: Store, run: Run) -> None:
        write("left")
        assert [item["key_id"] for item in run("asherah_rotate", "--dry-run")["items"]] == [SK_ID, LEFT_ID]
        assert lifecycle.list_keys().total() == 2


@kinds
class TestRevoke:
    def test_new_writes_leave_the_key_at_once_and_reads_stay(self, store: Store, run: Run) -> None:
        old = write("left")
        meta = key_of(old)

        document = run("asherah_revoke", meta.key_id, str(meta.created))

        assert (document["code"], document["summary"]) == (0, {"revoked": True, "partitions": 1})
        new = write("left")
        assert key_of(new).key_id == meta.key_id
        assert key_of(new).created > meta.created
        assert [key.state for key in lifecycle.list_keys() if key.partition == "left"] == ["current", "revoked"]
        require_opens(old, new)

    def test_a_system_key_affects_every_partition_under_it(self, store: Store, run: Run) -> None:
        write("left")
        write("right")
        put("_IK_elsewhere_suite_tests", 60, parent_key_meta=KeyMeta(SK_ID, 60))

        assert run("asherah_revoke", SK_ID, "--latest")["items"][0]["partitions"] == ["left", "right"]

    def test_twice_changes_nothing_and_neither_does_a_dry_run(self, store: Store) -> None:
        write("left")
        assert lifecycle.revoke(LEFT_ID, dry_run=True).changed
        assert [key.state for key in lifecycle.list_keys()] == ["current", "current"]
        assert lifecycle.revoke(LEFT_ID).changed
        assert not lifecycle.revoke(LEFT_ID).changed

    def test_an_unknown_key_names_those_that_there_are(self, store: Store) -> None:
        meta = key_of(write("left"))
        with pytest.raises(KeyNotFoundError, match=f"of this id there are: {meta.created}"):
            lifecycle.revoke(LEFT_ID, 5)
        with pytest.raises(KeyNotFoundError, match="there is no key of this id"):
            lifecycle.revoke("_SK_nobody")

    def test_a_row_that_is_no_key_is_none_to_revoke(self, store: Store) -> None:
        put(DRIFT_GUARD, 946684800)
        with pytest.raises(KeyNotFoundError, match="there is no key of this id"):
            lifecycle.revoke(DRIFT_GUARD)

    def test_a_change_by_somebody_else_is_kept_and_the_key_revoked(self, store: Store) -> None:
        write("left")
        (before,) = engine.get_factory().metastore.versions(SK_ID)  # type: ignore[attr-defined]
        theirs = EnvelopeKeyRecord(created=before.record().created, key=b"t" * 60)
        metastore: Any = engine.get_factory().metastore
        replace = metastore.replace
        tried = []

        def replace_after_somebody_else(row: Any, record: Any) -> bool:
            if not tried:
                assert replace(before, theirs)
            tried.append(row)
            return bool(replace(row, record))

        metastore.replace = replace_after_somebody_else
        try:
            assert lifecycle.revoke(SK_ID).changed
        finally:
            del metastore.replace

        assert len(tried) == 2
        (after,) = metastore.versions(SK_ID)
        assert after.record() == EnvelopeKeyRecord(revoked=True, created=theirs.created, key=theirs.key)


@kinds
class TestRewrap:
    def test_a_region_is_added_and_everything_opens(self, store: Store, run: Run) -> None:
        store.configure({"one": "arn-1"})
        text = write("left")
        store.configure()
        assert run("asherah_status")["problems"][0]["reason"] == "not wrapped for two"
        assert run("asherah_rewrap", "--dry-run")["summary"] == {"rewrapped": 1, "unchanged": 0, "failed": 0}
        assert run("asherah_rewrap")["summary"] == {"rewrapped": 1, "unchanged": 0, "failed": 0}
        assert run("asherah_rewrap")["summary"] == {"rewrapped": 0, "unchanged": 1, "failed": 0}
        assert [key.regions for key in lifecycle.list_keys() if not key.parent] == [ARNS]
        require_opens(text)

    def test_a_revocation_meanwhile_is_not_overwritten(self, store: Store) -> None:
        store.configure({"one": "arn-1"})
        write("left")
        store.configure()
        kms: Any = engine.get_factory().kms
        rewrap = kms.rewrap

        def rewrap_while_somebody_revokes(wrapped: bytes, **options: Any) -> bytes:
            metastore: Any = engine.get_factory().metastore
            (row,) = metastore.versions(SK_ID)
            revoked = EnvelopeKeyRecord(revoked=True, created=row.record().created, key=wrapped)
            assert metastore.replace(row, revoked)
            return bytes(rewrap(wrapped, **options))

        kms.rewrap = rewrap_while_somebody_revokes
        report = lifecycle.rewrap()

        assert report.rewrapped == []
        assert next(iter(report.failed.values())).endswith("run this again")
        assert [key.state for key in lifecycle.list_keys() if not key.parent] == [KeyState.REVOKED]


@kinds
class TestVerify:
    def test_every_key_opens(self, store: Store, run: Run) -> None:
        write("left")
        meta = key_of(write("right"))
        document = run("asherah_verify")
        assert (document["code"], document["summary"]) == (0, {"system_keys": 1, "intermediate_keys": 2})
        report = lifecycle.verify_key(meta)
        assert (report.system_keys, report.intermediate_keys, report.problems) == (1, 1, [])

    def test_a_key_that_does_not_open_and_a_region_that_is_down(self, store: Store, run: Run) -> None:
        meta = key_of(write("left"))
        system = next(key.meta for key in lifecycle.list_keys() if not key.parent)
        put(LEFT_ID, meta.created + 60, parent_key_meta=system)
        store.configure(down=("two",))
        document = run("asherah_verify")
        assert document["code"] == 1
        assert [problem["at"].partition(" ")[0] for problem in document["problems"]] == ["two", LEFT_ID, SK_ID]


@kinds_that_hold_anything
def test_a_broken_row_is_reported_and_harms_nothing_else(store: Store, run: Run) -> None:
    text = write("left")
    soon = int(time.time()) + 600
    store.put_broken("_SK_suite_tests", soon)
    store.put_broken("_IK_broken_suite_tests", 60)

    document = run("asherah_status")
    assert document["code"] == 1
    assert sorted(problem["at"] for problem in document["problems"]) == ["_IK_broken_suite_tests", SK_ID]
    assert all("key record: " in problem["reason"] for problem in document["problems"])
    assert [item["key_id"] for item in document["items"]] == [LEFT_ID, SK_ID]
    assert run("asherah_verify")["summary"] == {"system_keys": 1, "intermediate_keys": 1}
    assert lifecycle.revoke(SK_ID).partitions == ["left"]
    require_opens(text)


class TestAWSAlone:
    """Everything in AWS: keys wrapped by its KMS in two regions, their records in DynamoDB, and no database asked."""

    @pytest.fixture
    def regions(self, west: MotoRegion, east: MotoRegion) -> dict[str, MotoRegion]:
        return {server.region: server for server in (west, east)}

    @pytest.mark.parametrize("store", [in_dynamodb], indirect=True)
    def test_from_the_first_key_to_the_last(self, store: Store, regions: dict[str, MotoRegion], run: Run) -> None:
        def configure(*names: str) -> None:
            session: Any = boto3.Session
            urls = {name: regions[name].url for name in names}
            store.configure(
                KMS="aws",
                REGIONS={name: regions[name].arn for name in names},
                PREFERRED_REGION=names[0],
                KMS_OPTIONS={"endpoint_urls": urls, "session": session(**ACCESS)},
            )

        configure("us-west-2")
        first = write("left")
        assert run("asherah_rotate")["code"] == 0
        second = write("left")
        configure("us-west-2", "us-east-1")
        assert run("asherah_rewrap")["summary"] == {"rewrapped": 2, "unchanged": 0, "failed": 0}
        assert run("asherah_verify")["summary"] == {"system_keys": 2, "intermediate_keys": 2}
        configure("us-east-1")
        require_opens(first, second)
        assert run("asherah_revoke", LEFT_ID, "--latest")["summary"]["revoked"] is True
        assert key_of(write("left")).created > key_of(second).created
        items = [item for item in store.client.scan(TableName="EncryptionKey")["Items"] if item["Id"]["S"] == LEFT_ID]
        revoked = [item["KeyRecord"]["M"].get("Revoked") for item in items]
        assert sorted(map(json.dumps, revoked)) == ["null", "null", '{"BOOL": true}']


class TestWhatAMetastoreLacks:
    def test_one_that_lists_nothing_is_refused_by_its_name(self, settings: Any, run: Run) -> None:
        settings.ASHERAH = {**settings.ASHERAH, **BASE, **stores.use(OwnMetastore())}
        write("left")
        expected = (
            "the metastore OwnMetastore can't list its keys: it has no scan() and no versions(). "
            "Implement django_asherah.metastores.key_table.ListsKeys"
        )
        for words in (
            ("asherah_status",),
            ("asherah_rotate",),
            ("asherah_revoke", LEFT_ID, "--latest"),
            ("asherah_rewrap",),
            ("asherah_verify",),
        ):
            document = run(*words)
            assert document["code"] == 1
            assert document["problems"] == [{"at": "MetastoreError", "reason": expected}]

    def test_one_that_only_lists_is_listed_verified_and_rotated_but_not_revoked(self, settings: Any, run: Run) -> None:
        settings.ASHERAH = {
            **BASE,
            "KMS": "tests.regional.PretendedAws",
            "KMS_OPTIONS": {"arns": ARNS},
            **stores.use(ListingMetastore()),
        }
        write("left")
        assert run("asherah_rotate")["code"] == 0
        assert len(run("asherah_status")["items"]) == 4
        assert run("asherah_verify")["summary"] == {"system_keys": 2, "intermediate_keys": 2}
        for work in (
            lambda: lifecycle.revoke(LEFT_ID),
            lambda: lifecycle.revoke(LEFT_ID, dry_run=True),
            lifecycle.rewrap,
        ):
            with pytest.raises(MetastoreError) as caught:
                work()
            assert str(caught.value) == (
                "the metastore ListingMetastore can't replace a key's record, which revoking and re-wrapping need: "
                "it has no replace(). Implement django_asherah.metastores.key_table.ReplacesKeys"
            )
        assert {key.state for key in lifecycle.list_keys()} == {KeyState.CURRENT, KeyState.SUPERSEDED}
