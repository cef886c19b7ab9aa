"""The metastore in DynamoDB, against moto's over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from threading import Semaphore
from typing import Any, ClassVar

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from pytest_django import Settings

from django_asherah import engine
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta
from django_asherah.envelope.session import SessionFactory
from django_asherah.exceptions import InvalidRecordError, MetastoreError
from django_asherah.kms.static import StaticKMS
from django_asherah.metastores.dynamodb import DynamoDBMetastore
from django_asherah.metastores.key_table import KeyRow
from tests.databases import as_asherah, record
from tests.forking import Fork, either_fork, in_child
from tests.interop.peers import STATIC_KEY, Peer
from tests.moto_servers import ACCESS, MotoRegion, answering, dripping, dynamodb_table, moto_region, refused_url

pytestmark = pytest.mark.slow

REGION = "us-west-2"
ANSWERED = {"HTTPStatusCode": 200, "HTTPHeaders": {"content-type": "application/x-amz-json-1.0"}}
"""What boto3 says of an answer of DynamoDB's."""


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoRegion]:
    with moto_region(REGION) as server:
        yield server


@pytest.fixture
def client(moto: MotoRegion) -> Iterator[Any]:
    with dynamodb_table(moto) as client:
        yield client


def make(moto: MotoRegion, **options: Any) -> DynamoDBMetastore:
    session: Any = boto3.Session
    return DynamoDBMetastore(**{"region": REGION, "endpoint_url": moto.url, "session": session(**ACCESS), **options})


@pytest.fixture
def metastore(moto: MotoRegion, client: Any) -> DynamoDBMetastore:
    return make(moto)


def test_what_is_stored_is_loaded_and_the_first_one_stands(metastore: DynamoDBMetastore) -> None:
    first, second = record(60, 1, parent="_SK_s_p"), record(60, 2, parent="_SK_s_p")
    assert metastore.load(KeyMeta("_IK_p_s_p", 60)) is None
    assert metastore.load_latest("_IK_p_s_p") is None
    assert metastore.store("_IK_p_s_p", first) is True
    assert metastore.store("_IK_p_s_p", second) is False
    assert metastore.load(KeyMeta("_IK_p_s_p", 60)) == first
    assert metastore.is_committed(KeyMeta("_IK_p_s_p", 60), first)


def test_the_latest_is_the_one_created_last(metastore: DynamoDBMetastore) -> None:
    for created in (120, 60, 1_800_000_000, 180):
        metastore.store("_SK_s_p", record(created))
    metastore.store("_SK_s_p2", record(2_000_000_000))
    latest = metastore.load_latest("_SK_s_p")
    assert latest is not None
    assert latest.created == 1_800_000_000


class _Stingy:
    """A client that reads no more than three keys at a time, as DynamoDB does with large items."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.calls: list[int] = []
        self.pages = 0

    def client(self, *names: Any, **options: Any) -> Any:
        """Stand in for the session, too."""
        return self

    def batch_get_item(self, RequestItems: Any) -> Any:
        ((table, request),) = RequestItems.items()
        keys = request["Keys"]
        self.calls.append(len(keys))
        answer = self._client.batch_get_item(RequestItems={table: {**request, "Keys": keys[:3]}})
        answer["UnprocessedKeys"] = {table: {**request, "Keys": keys[3:]}} if keys[3:] else {}
        answer["Responses"][table].reverse()
        return answer

    def scan(self, **parameters: Any) -> Any:
        assert parameters["ConsistentRead"] is True
        self.pages += 1
        return self._client.scan(**parameters, Limit=3)

    def query(self, **parameters: Any) -> Any:
        assert parameters["ConsistentRead"] is True
        return self._client.query(**{**parameters, "Limit": 3})


def test_many_are_loaded_with_one_call_for_each_hundred(metastore: DynamoDBMetastore) -> None:
    stored = {KeyMeta(f"_IK_{n}_s_p", 60): record(60, n, parent="_SK_s_p") for n in range(120)}
    for meta, each in stored.items():
        metastore.store(meta.key_id, each)
    others = [KeyMeta("_IK_0_s_p", 120), KeyMeta("_IK_none_s_p", 60)]

    assert metastore.load_many([*others, *stored, *others]) == stored
    assert metastore.load_many(others) == {}
    assert metastore.load_many([]) == {}


def test_what_one_answer_has_no_room_for_is_asked_for_again(
    metastore: DynamoDBMetastore, moto: MotoRegion, client: Any
) -> None:
    metas = [KeyMeta(f"_IK_{n}_s_p", 60) for n in range(8)]
    for meta in metas:
        metastore.store(meta.key_id, record(60))
    stingy = _Stingy(client)

    pauses: list[float] = []
    store = make(moto, session=stingy, sleep=pauses.append, random=lambda: 1.0)
    assert store.load_many(metas) == dict.fromkeys(metas, record(60))
    assert stingy.calls == [8, 5, 2]
    assert pauses == [0.05, 0.05]


class _Throttled(_Stingy):
    """A client whose table has no capacity left: of every batch it reads so many keys, the last number for good."""

    def __init__(self, client: Any, *numbers: int) -> None:
        super().__init__(client)
        self._numbers = list(numbers)

    def batch_get_item(self, RequestItems: Any) -> Any:
        ((table, request),) = RequestItems.items()
        keys = request["Keys"]
        self.calls.append(len(keys))
        number = self._numbers.pop(0) if len(self._numbers) > 1 else self._numbers[0]
        now, later = keys[:number], keys[number:]
        answer: Any = {"Responses": {table: []}, "ResponseMetadata": ANSWERED}
        if now:
            answer = self._client.batch_get_item(RequestItems={table: {**request, "Keys": now}})
        return {**answer, "UnprocessedKeys": {table: {**request, "Keys": later}} if later else {}}


class TestThrottling:
    METAS: ClassVar = [KeyMeta(f"_IK_{n}_s_p", 60) for n in range(120)]

    def test_between_calls_there_are_pauses_that_double_and_vary(
        self, metastore: DynamoDBMetastore, moto: MotoRegion, client: Any
    ) -> None:
        metastore.store_many(dict.fromkeys(self.METAS, record(60)))
        throttled, pauses, fractions = _Throttled(client, 0, 0, 60, 0, 100), [], iter([0.5, 1.0, 0.5, 0.25])
        store = make(moto, session=throttled, sleep=pauses.append, random=lambda: next(fractions))
        assert store.load_many(self.METAS) == dict.fromkeys(self.METAS, record(60))
        assert throttled.calls == [100, 100, 100, 60, 60]
        # What has brought something begins anew.
        assert pauses == [0.05, 0.2, 0.025, 0.025]

    def test_a_table_that_gives_nothing_ends_in_an_error_that_says_so(self, moto: MotoRegion, client: Any) -> None:
        throttled, pauses = _Throttled(client, 0), []
        store = make(moto, session=throttled, sleep=pauses.append, random=lambda: 1.0)
        with pytest.raises(MetastoreError) as caught:
            store.load_many(self.METAS)
        assert str(caught.value) == (
            "the DynamoDB table 'EncryptionKey' is throttled: asked 8 times in a row, it gave none of the keys. "
            "Raise its read capacity, or use on-demand capacity"
        )
        assert throttled.calls == [100] * 8
        assert pauses == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]

    def test_a_table_that_gives_one_key_at_a_time_is_read_to_the_end(
        self, metastore: DynamoDBMetastore, moto: MotoRegion, client: Any
    ) -> None:
        metastore.store_many(dict.fromkeys(self.METAS[:20], record(60)))
        store = make(moto, session=_Throttled(client, 1), sleep=lambda seconds: None)
        assert store.load_many(self.METAS[:20]) == dict.fromkeys(self.METAS[:20], record(60))


def test_a_table_that_answers_the_same_page_for_ever_is_an_error(moto: MotoRegion) -> None:
    class Turning(_Stingy):
        def scan(self, **parameters: Any) -> Any:
            self.pages += 1
            last = {"Id": {"S": "_SK_s_p"}, "Created": {"N": "60"}}
            return {"Items": [], "Count": 0, "LastEvaluatedKey": last, "ResponseMetadata": ANSWERED}

    turning = Turning(None)
    with pytest.raises(MetastoreError, match="it answers the same page again and again"):
        list(make(moto, session=turning).scan())
    assert turning.pages == 2


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"", "application/x-amz-json-1.0"),
        (204, b"", "application/x-amz-json-1.0"),
        (200, b"<html>Sign in</html>", "text/html"),
        (200, b"{}", "text/html"),
        (200, b"null", "application/x-amz-json-1.0"),
        (200, b"[]", "application/x-amz-json-1.0"),
        (200, b'"x"', "application/x-amz-json-1.0"),
        (200, b"\xff\xfe", "application/x-amz-json-1.0"),
        (400, b"[]", "application/x-amz-json-1.0"),
        (400, b'{"__type": ["a"]}', "application/x-amz-json-1.0"),
        (400, b'{"__type": 5}', "application/x-amz-json-1.0"),
    ],
)
def test_an_answer_that_is_not_from_dynamodb_says_nothing_about_a_key(
    moto: MotoRegion, status: int, body: bytes, kind: str
) -> None:
    meta = KeyMeta("_IK_p_s_p", 60)
    row = KeyRow(meta.key_id, "{}", {"M": {}})
    with answering(status, body, kind) as server:
        store = make(moto, endpoint_url=server.url)
        work: list[Callable[[], Any]] = [
            lambda: store.load(meta),
            lambda: store.load_many([meta]),
            lambda: store.load_latest(meta.key_id),
            lambda: store.store(meta.key_id, record(60)),
            lambda: store.store_many({meta: record(60)}),
            lambda: store.replace(row, record(60)),
            lambda: store.read(meta),
            lambda: list(store.scan()),
            lambda: list(store.versions(meta.key_id)),
            lambda: list(store.children(meta)),
            store.count,
        ]
        for each in work:
            with pytest.raises(MetastoreError, match="the DynamoDB table 'EncryptionKey' failed: "):
                each()


@pytest.mark.parametrize("part", ["status line", "headers", "body"])
def test_an_answer_that_never_ends_is_an_error(moto: MotoRegion, part: str) -> None:
    with dripping(part) as server:
        metastore = make(moto, endpoint_url=server.url, connect_timeout=0.05, read_timeout=0.25)
        with pytest.raises(MetastoreError) as caught:
            metastore.load(KeyMeta("_SK_s_p", 60))
    assert str(caught.value) == (
        "the DynamoDB table 'EncryptionKey' failed: DeadlineError: DynamoDB has not answered within 3.9 seconds"
    )
    # No further attempt: each would be as long.
    assert server.requests == 1


def test_with_calls_left_behind_no_further_one_is_made(moto: MotoRegion) -> None:
    with dripping() as server:
        metastore = make(moto, endpoint_url=server.url, connect_timeout=0.05, read_timeout=0.25)
        with pytest.raises(MetastoreError, match="has not answered"):
            metastore.load_latest_many([f"_SK_{number}" for number in range(8)])
        with pytest.raises(MetastoreError, match="DeadlineError: DynamoDB is not asked: 8 earlier calls still wait"):
            metastore.load(KeyMeta("_SK_s_p", 60))
        assert server.requests == 8


def test_of_many_a_broken_item_is_left_out(metastore: DynamoDBMetastore, client: Any) -> None:
    good, bad = KeyMeta("_IK_a_s_p", 60), KeyMeta("_IK_b_s_p", 60)
    metastore.store(good.key_id, record(60))
    client.put_item(TableName="EncryptionKey", Item={"Id": {"S": bad.key_id}, "Created": {"N": "60"}})

    assert metastore.load_many([bad, good]) == {good: record(60)}


class TestManyAtOnce:
    RECORDS: ClassVar = {KeyMeta(f"_IK_{n}_s_p", 60): record(60, 1, parent="_SK_s_p") for n in range(130)}

    def test_those_that_another_stored_first_stand(self, metastore: DynamoDBMetastore) -> None:
        theirs = {meta: record(60, 2, parent="_SK_s_p") for meta in list(self.RECORDS)[10:15]}
        assert metastore.store_many(theirs) == theirs.keys()
        assert metastore.store_many(self.RECORDS) == self.RECORDS.keys() - theirs.keys()
        assert metastore.load_many(list(self.RECORDS)) == self.RECORDS | theirs
        assert metastore.store_many({}) == set()

    def test_what_fails_halfway_has_stored_only_whole_records(self, moto: MotoRegion, client: Any) -> None:
        left = Semaphore(40)

        class Failing(_Stingy):
            def put_item(self, **parameters: Any) -> Any:
                if not left.acquire(blocking=False):
                    raise EndpointConnectionError(endpoint_url="https://dynamodb")
                return self._client.put_item(**parameters)

        with pytest.raises(MetastoreError, match="EndpointConnectionError"):
            make(moto, session=Failing(client)).store_many(self.RECORDS)
        stored = make(moto).load_many(list(self.RECORDS))
        assert len(stored) == 40
        assert stored.items() <= self.RECORDS.items()

    def test_the_item_is_the_same_as_that_of_one(self, metastore: DynamoDBMetastore, client: Any) -> None:
        key = {"Id": {"S": "_IK_p_s_p"}, "Created": {"N": "60"}}
        made = record(60, 7, parent="_SK_s_p", revoked=True)
        metastore.store("_IK_p_s_p", made)
        alone = client.get_item(TableName="EncryptionKey", Key=key)["Item"]
        client.delete_item(TableName="EncryptionKey", Key=key)
        metastore.store_many({KeyMeta("_IK_p_s_p", 60): made})
        assert client.get_item(TableName="EncryptionKey", Key=key)["Item"] == alone

    def test_the_latest_of_each_is_found(self, metastore: DynamoDBMetastore) -> None:
        newest = {}
        for number in range(20):
            for created in (120, 60, 1_800_000_000 + number):
                newest[f"_SK_{number}"] = record(created, number)
                metastore.store(f"_SK_{number}", newest[f"_SK_{number}"])
        assert metastore.load_latest_many([*newest, "_SK_nobody"]) == newest
        assert metastore.load_latest_many([]) == {}

    def test_a_latest_item_that_is_no_key_is_named(self, metastore: DynamoDBMetastore, client: Any) -> None:
        metastore.store("_SK_a", record(60))
        client.put_item(TableName="EncryptionKey", Item={"Id": {"S": "_SK_b"}, "Created": {"N": "60"}})
        with pytest.raises(InvalidRecordError, match=r"key _SK_b \(latest\) in DynamoDB table"):
            metastore.load_latest_many(["_SK_a", "_SK_b"])

    def test_two_engines_over_the_same_partitions_end_with_one_key_each(self, moto: MotoRegion, client: Any) -> None:
        names = [f"tenant-{number}" for number in range(150)]
        engines = [
            SessionFactory("s", "p", make(moto), StaticKMS(STATIC_KEY), clock=lambda: 1_800_000_000) for _ in range(3)
        ]
        orders = [names, names[::-1], names[70:] + names[:70]]
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda engine, order: engine.current_keys(order), engines, orders))
        keys = [{name: key.record.key for name, key in each.items()} for each in found]
        assert keys[0] == keys[1] == keys[2]
        assert make(moto).count() == len(names) + 1


def test_the_item_has_the_layout_of_the_sdks(metastore: DynamoDBMetastore, client: Any) -> None:
    metastore.store("_IK_p_s_p", record(60, 7, parent="_SK_s_p", revoked=True))
    metastore.store("_SK_s_p", record(60, 8))
    key = {"Id": {"S": "_IK_p_s_p"}, "Created": {"N": "60"}}
    assert client.get_item(TableName="EncryptionKey", Key=key)["Item"] == {
        **key,
        "KeyRecord": {
            "M": {
                "Revoked": {"BOOL": True},
                "Created": {"N": "60"},
                "Key": {"S": "BwcH" * 20},
                "ParentKeyMeta": {"M": {"KeyId": {"S": "_SK_s_p"}, "Created": {"N": "60"}}},
            }
        },
    }
    system = client.get_item(TableName="EncryptionKey", Key={"Id": {"S": "_SK_s_p"}, "Created": {"N": "60"}})["Item"]
    assert set(system["KeyRecord"]["M"]) == {"Created", "Key"}


@pytest.mark.parametrize(
    "key_record",
    [
        None,
        {"S": "x"},
        {"M": {}},
        {"M": {"Created": {"N": "60"}}},
        {"M": {"Created": {"N": "6.5"}, "Key": {"S": "A" * 80}}},
        {"M": {"Created": {"N": "60"}, "Key": {"S": "not base64"}}},
        {"M": {"Created": {"N": "60"}, "Key": {"S": "AAAA"}}},
        {"M": {"Created": {"S": "60"}, "Key": {"S": "A" * 80}}},
    ],
)
def test_what_is_no_key_record_is_refused_by_name(metastore: DynamoDBMetastore, client: Any, key_record: Any) -> None:
    item = {"Id": {"S": "_SK_s_p"}, "Created": {"N": "60"}} | ({"KeyRecord": key_record} if key_record else {})
    client.put_item(TableName="EncryptionKey", Item=item)
    for load in (lambda: metastore.load(KeyMeta("_SK_s_p", 60)), lambda: metastore.load_latest("_SK_s_p")):
        with pytest.raises(InvalidRecordError, match="key _SK_s_p"):
            load()


def test_revoked_false_and_null_mean_the_same_as_missing(metastore: DynamoDBMetastore, client: Any) -> None:
    for created, revoked in ((60, {"BOOL": False}), (120, {"NULL": True})):
        members = {"Created": {"N": str(created)}, "Key": {"S": "A" * 80}, "Revoked": revoked}
        item = {"Id": {"S": "_SK_s_p"}, "Created": {"N": str(created)}, "KeyRecord": {"M": members}}
        client.put_item(TableName="EncryptionKey", Item=item)
        loaded = metastore.load(KeyMeta("_SK_s_p", created))
        assert loaded is not None
        assert loaded.revoked is False


def test_an_answer_without_what_was_asked_for_is_an_error(moto: MotoRegion) -> None:
    with answering(200, b"{}", "application/x-amz-json-1.0") as server:
        store = make(moto, endpoint_url=server.url)
        work: list[Callable[[], Any]] = [
            lambda: store.load_latest("_SK_s_p"),
            lambda: store.load_many([KeyMeta("_SK_s_p", 60)]),
            lambda: list(store.scan()),
            store.count,
        ]
        for each, member in zip(work, ("Items", "Responses", "Items", "Count"), strict=True):
            with pytest.raises(MetastoreError, match=f"failed: its answer holds no {member}"):
                each()


def test_a_failing_table_is_an_error_and_never_a_duplicate(moto: MotoRegion, client: Any) -> None:
    for metastore in (make(moto, table_name="Nobody"), make(moto, endpoint_url=refused_url())):
        for work in (
            lambda store=metastore: store.store("_SK_s_p", record(60)),
            lambda store=metastore: store.load(KeyMeta("_SK_s_p", 60)),
            lambda store=metastore: store.load_latest("_SK_s_p"),
            lambda store=metastore: store.load_many([KeyMeta("_SK_s_p", 60)]),
            lambda store=metastore: store.load_latest_many(["_SK_s_p"]),
            lambda store=metastore: store.store_many({KeyMeta("_SK_s_p", 60): record(60)}),
        ):
            with pytest.raises(MetastoreError, match="the DynamoDB table '"):
                work()


def test_the_setting_chooses_it(moto: MotoRegion, client: Any, settings: Settings) -> None:
    session: Any = boto3.Session
    options = {"region": REGION, "endpoint_url": moto.url, "session": session(**ACCESS)}
    settings.ASHERAH = as_asherah(METASTORE="dynamodb", METASTORE_OPTIONS=options)
    text = engine.get_session("p").encrypt(b"x")
    engine.reset()
    assert engine.get_session("p").decrypt(text) == b"x"
    assert client.scan(TableName="EncryptionKey")["Count"] == 2


@either_fork
def test_a_forked_child_has_a_client_of_its_own(fork: Fork, metastore: DynamoDBMetastore) -> None:
    metastore.store("_SK_s_p", record(60))
    inherited = id(metastore._client.get())
    stored, own = in_child(fork, lambda: (metastore.store("_SK_s_p", record(120)), id(metastore._client.get())))
    assert stored
    assert own != inherited


VECTORS = Path(__file__).parent.parent / "vectors" / "official_sdk_vectors.json"


def test_items_that_the_official_sdk_wrote_are_read(metastore: DynamoDBMetastore, client: Any) -> None:
    (vector,) = [v for v in json.loads(VECTORS.read_text(encoding="utf-8")) if v["metastore"] == "dynamodb"]
    for row in vector["key_rows"]:
        client.put_item(TableName="EncryptionKey", Item=row["dynamodb_item"])
    kms = StaticKMS(bytes.fromhex(vector["static_key_hex"]))
    factory = SessionFactory(vector["service"], vector["product"], metastore, kms)
    assert vector["records"]
    for item in vector["records"]:
        assert len(factory.get_session(item["partition"]).decrypt(item["drr"])) == item["plaintext_len"]


@pytest.mark.parametrize("suffix", ["", REGION])
def test_the_rust_core_shares_the_table(
    moto: MotoRegion, metastore: DynamoDBMetastore, client: Any, suffix: str, start: Callable[..., Peer]
) -> None:
    config = {
        "ServiceName": "suite",
        "ProductID": "tests",
        "Metastore": "dynamodb",
        "DynamoDBEndpoint": moto.url,
        "DynamoDBRegion": REGION,
        "DynamoDBTableName": "EncryptionKey",
        "EnableRegionSuffix": bool(suffix),
        "KMS": "static",
        "StaticMasterKeyHex": STATIC_KEY.hex(),
        "ConfigDriftForceRun": True,
    }
    environment = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": REGION}
    peer = start("rust", config, AWS_ENDPOINT_URL=moto.url, **environment)
    factory = SessionFactory("suite", "tests", metastore, StaticKMS(STATIC_KEY), key_suffix=suffix)
    text = peer.encrypt("p", b"theirs")
    assert factory.get_session("p").decrypt(text) == b"theirs"
    assert peer.decrypt("p", factory.get_session("p").encrypt(b"ours")) == b"ours"
    assert peer.decrypt("q", factory.get_session("q").encrypt(b"ours first")) == b"ours first"
    assert (f"_IK_p_suite_tests{'_' if suffix else ''}{suffix}" in text) is True


def test_a_suffix_is_matched_exactly(metastore: DynamoDBMetastore) -> None:
    from django_asherah.exceptions import PartitionMismatchError

    kms = StaticKMS(STATIC_KEY)
    factories = [SessionFactory("s", "p", metastore, kms, key_suffix=suffix) for suffix in ("", "eu", "eu-west")]
    for writer in factories:
        text = writer.get_session("t").encrypt(b"x")
        for reader in factories:
            if reader is writer or writer is factories[0]:  # What has no suffix, every suffix reads.
                assert reader.get_session("t").decrypt(text) == b"x"
            else:
                with pytest.raises(PartitionMismatchError):
                    reader.get_session("t").decrypt(text)


class TestKeyTable:
    TIMES = (120, 60, 1_800_000_000, 180, 9)

    def put_many(self, metastore: DynamoDBMetastore) -> list[KeyMeta]:
        """Put in more than an answer holds, in no order; return them as a listing has them."""
        metas = [KeyMeta(f"_IK_{number}_s_p", created) for number in (4, 1, 3, 0, 2) for created in self.TIMES]
        for meta in metas:
            metastore.store(meta.key_id, record(meta.created, parent="_SK_s_p"))
        return sorted(metas, key=lambda meta: (meta.key_id, -meta.created))

    def test_the_rows_of_an_id_are_listed_together_the_newest_first_whatever_the_size_of_the_answers(
        self, metastore: DynamoDBMetastore, moto: MotoRegion, client: Any
    ) -> None:
        expected = self.put_many(metastore)
        stingy = _Stingy(client)
        rows = list(make(moto, session=stingy).scan())

        assert [key_id for key_id, _ in groupby(rows, key=lambda row: row.key_id)] == list(
            dict.fromkeys(row.key_id for row in rows)
        )
        rows.sort(key=lambda row: row.key_id)
        assert [KeyMeta(row.key_id, row.record().created) for row in rows] == expected
        assert [row.record() for row in rows] == [record(meta.created, parent="_SK_s_p") for meta in expected]
        assert stingy.pages > 8
        assert make(moto, session=_Stingy(client)).count() == 25

    def test_more_rows_than_one_batch(self, metastore: DynamoDBMetastore) -> None:
        ids = [f"_IK_{number:03}_s_p" for number in range(205)]
        for key_id in reversed(ids):
            metastore.store(key_id, record(60))
        assert sorted(row.key_id for row in metastore.scan()) == ids
        assert metastore.count() == 205

    def test_a_megabyte_and_more_is_scanned_to_its_end(self, metastore: DynamoDBMetastore, client: Any) -> None:
        """DynamoDB, and moto as well, ends an answer at a megabyte."""
        for number in range(60):
            metastore.store(f"_SK_{number:03}", EnvelopeKeyRecord(created=60, key=bytes(16 * 1024)))
        assert "LastEvaluatedKey" in client.scan(TableName="EncryptionKey")
        assert len(list(metastore.scan())) == 60
        assert metastore.count() == 60

    def test_a_listing_reads_no_further_than_it_is_asked(
        self, metastore: DynamoDBMetastore, moto: MotoRegion, client: Any
    ) -> None:
        """However many keys there are, it holds one answer and the rows of one id."""
        self.put_many(metastore)
        stingy = _Stingy(client)
        rows = make(moto, session=stingy).scan()
        assert stingy.pages == 0
        next(rows)
        assert stingy.pages == 2  # Six items: the five of one id, and one that is another's.
        assert stingy.calls == []

    def test_keys_made_while_it_is_listed_disturb_nothing(
        self, metastore: DynamoDBMetastore, moto: MotoRegion, client: Any
    ) -> None:
        """As a rotation makes them: of an id that has just been met."""
        expected = self.put_many(metastore)
        met = []
        for row in make(moto, session=_Stingy(client)).scan():
            met.append(KeyMeta(row.key_id, row.record().created))
            metastore.store(row.key_id, record(2_000_000_000, parent="_SK_s_p"))
        assert sorted(met, key=lambda meta: (meta.key_id, -meta.created)) == expected

    def test_the_rows_of_one_id(self, metastore: DynamoDBMetastore, moto: MotoRegion, client: Any) -> None:
        self.put_many(metastore)
        rows = make(moto, session=_Stingy(client)).versions("_IK_3_s_p")
        assert [row.record().created for row in rows] == sorted(self.TIMES, reverse=True)
        assert list(metastore.versions("_IK_nobody")) == []

    def test_children_are_those_that_name_the_parent(
        self, metastore: DynamoDBMetastore, moto: MotoRegion, client: Any
    ) -> None:
        self.put_many(metastore)
        metastore.store("_SK_s_p", record(60))
        metastore.store("_IK_other", record(60, parent="_SK_s_p2"))
        rows = make(moto, session=_Stingy(client)).children(KeyMeta("_SK_s_p", 60))
        assert sorted(row.key_id for row in rows) == [f"_IK_{number}_s_p" for number in range(5)]

    def test_a_record_is_replaced_if_it_is_exactly_what_was_read(
        self, metastore: DynamoDBMetastore, client: Any
    ) -> None:
        key = {"Id": {"S": "_SK_s_p"}, "Created": {"N": "60"}}
        members = {"Created": {"N": "60"}, "Key": {"S": "BwcH" * 20}}
        client.put_item(TableName="EncryptionKey", Item={**key, "KeyRecord": {"M": members}, "ttl": {"N": "7"}})
        row = metastore.read(KeyMeta("_SK_s_p", 60))
        assert row is not None

        assert metastore.replace(row, record(60, 7, revoked=True))

        revoked = {"M": {"Revoked": {"BOOL": True}, **members}}
        stored = {**key, "KeyRecord": revoked, "ttl": {"N": "7"}}  # What is not ours stays.
        assert client.get_item(TableName="EncryptionKey", Key=key)["Item"] == stored
        assert not metastore.replace(row, record(60, 8))
        assert client.get_item(TableName="EncryptionKey", Key=key)["Item"] == stored

    @pytest.mark.parametrize("revoked", [{"BOOL": False}, {"NULL": True}])
    def test_what_means_the_same_is_not_the_same(self, metastore: DynamoDBMetastore, client: Any, revoked: Any) -> None:
        key = {"Id": {"S": "_SK_s_p"}, "Created": {"N": "60"}}
        members = {"Created": {"N": "60"}, "Key": {"S": "BwcH" * 20}}
        client.put_item(TableName="EncryptionKey", Item={**key, "KeyRecord": {"M": members}})
        row = metastore.read(KeyMeta("_SK_s_p", 60))
        assert row is not None
        client.put_item(TableName="EncryptionKey", Item={**key, "KeyRecord": {"M": {**members, "Revoked": revoked}}})

        assert not metastore.replace(row, record(60, 8))
        again = metastore.read(KeyMeta("_SK_s_p", 60))
        assert again is not None
        assert metastore.replace(again, record(60, 8))

    def test_a_row_that_is_gone_is_not_made_again(self, metastore: DynamoDBMetastore, client: Any) -> None:
        metastore.store("_SK_s_p", record(60))
        row = metastore.read(KeyMeta("_SK_s_p", 60))
        assert row is not None
        client.delete_item(TableName="EncryptionKey", Key={"Id": {"S": "_SK_s_p"}, "Created": {"N": "60"}})

        assert not metastore.replace(row, record(60, 8))
        assert metastore.count() == 0
        assert metastore.read(KeyMeta("_SK_s_p", 60)) is None

    def test_a_write_that_is_sent_again_because_its_answer_was_lost_has_succeeded(
        self, metastore: DynamoDBMetastore, moto: MotoRegion, client: Any
    ) -> None:
        class SendingTwice(_Stingy):
            def update_item(self, **parameters: Any) -> Any:
                client.update_item(**parameters)
                return client.update_item(**parameters)

            def get_item(self, **parameters: Any) -> Any:
                return client.get_item(**parameters)

        metastore.store("_SK_s_p", record(60))
        row = metastore.read(KeyMeta("_SK_s_p", 60))
        assert row is not None
        assert make(moto, session=SendingTwice(client)).replace(row, record(60, 8))
        assert metastore.load(KeyMeta("_SK_s_p", 60)) == record(60, 8)

    @pytest.mark.parametrize(
        "key_record",
        [None, {"S": "x"}, {"M": {}}, {"NULL": True}, {"B": b"x"}, {"L": [{"N": "1"}]}, {"SS": ["a"]}, {"N": "1E+40"}],
    )
    def test_a_row_that_is_no_record_is_listed_and_only_then_refused(
        self, metastore: DynamoDBMetastore, client: Any, key_record: Any
    ) -> None:
        item = {"Id": {"S": "_SK_s_p"}, "Created": {"N": "6.5"}} | ({"KeyRecord": key_record} if key_record else {})
        client.put_item(TableName="EncryptionKey", Item=item)
        metastore.store("_SK_s_p", record(60))

        good, bad = metastore.scan()

        assert good.record() == record(60)
        with pytest.raises(InvalidRecordError):
            bad.record()

    def test_a_failing_table_is_a_metastore_error(self, moto: MotoRegion, client: Any) -> None:
        row = KeyRow("_SK_s_p", b"{}", {"M": {}})
        for metastore in (make(moto, table_name="Nobody"), make(moto, endpoint_url=refused_url())):
            for work in (
                lambda store=metastore: list(store.scan()),
                lambda store=metastore: list(store.versions("_SK_s_p")),
                lambda store=metastore: store.read(KeyMeta("_SK_s_p", 60)),
                lambda store=metastore: list(store.children(KeyMeta("_SK_s_p", 60))),
                lambda store=metastore: store.count(),
                lambda store=metastore: store.replace(row, record(60)),
            ):
                with pytest.raises(MetastoreError, match="the DynamoDB table '"):
                    work()


N = {"N": "1795478400"}
KEY = {"S": "A" * 80}


class TestItemsThatAreNoSoundKeys:
    """One stands beside two sound keys of its id, and one of another."""

    @pytest.fixture
    def stored(self, metastore: DynamoDBMetastore) -> dict[KeyMeta, EnvelopeKeyRecord]:
        keys = {KeyMeta("_IK_a_s_p", created): record(created, 1, "_SK_s_p") for created in (1_795_478_400, 60)}
        keys[KeyMeta("_IK_b_s_p", 60)] = record(60, 2, "_SK_s_p")
        assert metastore.store_many(keys) == set(keys)
        return keys

    @pytest.mark.parametrize(
        ("created", "key_record", "problem"),
        [
            (
                "1798761600",
                {"M": {"Created": {"N": "1798761523"}, "Key": KEY}},
                "it is stored as created 1798761600, but",
            ),
            (
                "1E+30",
                {"M": {"Created": N, "Key": KEY}},
                r"it is stored as created 1(E\+30|0{30}), but its record says",
            ),
            ("1795478400.5", {"M": {"Created": N, "Key": KEY}}, "it is stored as created 1795478400.5, but its record"),
            ("1795478401", {"M": {"Created": {"S": "1795478401"}, "Key": KEY}}, "not an envelope key record"),
            ("1795478401", {"M": {"Key": KEY}}, "not an envelope key record"),
            ("1795478401", {"M": {"Created": {"N": "1795478401.5"}, "Key": KEY}}, "not an envelope key record"),
            ("1795478401", {"M": {"Created": {"N": "1E+30"}, "Key": KEY}}, "not an envelope key record"),
            ("1795478401", {"M": {}}, "not an envelope key record"),
            ("1795478401", {"S": "text"}, "not an envelope key record"),
            ("1795478401", {"L": [N]}, "not an envelope key record"),
            ("1795478401", {"B": b"bytes"}, "not an envelope key record"),
            ("1795478401", {"NULL": True}, "not an envelope key record"),
            ("1795478401", None, "not an envelope key record"),
        ],
    )
    def test_hide_no_good_key_as_the_newest(
        self,
        metastore: DynamoDBMetastore,
        client: Any,
        stored: dict[KeyMeta, EnvelopeKeyRecord],
        created: str,
        key_record: Any,
        problem: str,
    ) -> None:
        put(client, created, key_record)

        for look in (metastore.load_latest, lambda key_id: metastore.load_latest_many([key_id, "_IK_b_s_p"])):
            said = rf"key _IK_a_s_p \(latest\) in DynamoDB table '\w+': {problem}"
            with pytest.raises(InvalidRecordError, match=said):
                look("_IK_a_s_p")
        first, *others = metastore.versions("_IK_a_s_p")
        with pytest.raises(InvalidRecordError, match=problem):
            first.record()
        check_sound(metastore, stored, others)

    @pytest.mark.parametrize("created", ["-1795478400", "-1", "0.5", "1E-130", "-1E+30"])
    def test_hide_no_good_key_as_the_last(
        self, metastore: DynamoDBMetastore, client: Any, stored: dict[KeyMeta, EnvelopeKeyRecord], created: str
    ) -> None:
        put(client, created, {"M": {"Created": N, "Key": KEY}})

        assert metastore.load_latest("_IK_a_s_p") == stored[KeyMeta("_IK_a_s_p", 1_795_478_400)]
        *others, last = metastore.versions("_IK_a_s_p")
        assert last.fault.startswith("it is stored as created ")
        check_sound(metastore, stored, others)

    def test_are_found_by_neither_of_their_times(self, metastore: DynamoDBMetastore, client: Any) -> None:
        put(client, "1798761600", {"M": {"Created": {"N": "1798761523"}, "Key": KEY}})
        metas = [KeyMeta("_IK_a_s_p", created) for created in (1_798_761_600, 1_798_761_523)]

        assert [metastore.load(meta) for meta in metas] == [None, None]
        assert metastore.load_many(metas) == {}
        row = metastore.read(metas[0])
        assert row is not None
        with pytest.raises(InvalidRecordError, match="its record says 1798761523"):
            row.record()


def put(client: Any, created: str, key_record: Any) -> None:
    """Put an item of one id, with this ``Created`` and this ``KeyRecord``."""
    item = {"Id": {"S": "_IK_a_s_p"}, "Created": {"N": created}, "KeyRecord": key_record}
    client.put_item(TableName="EncryptionKey", Item={name: value for name, value in item.items() if value is not None})


def check_sound(metastore: DynamoDBMetastore, stored: dict[KeyMeta, EnvelopeKeyRecord], others: list[KeyRow]) -> None:
    """Check that nothing but one unsound row of the first id is in the way of what is stored."""
    assert [row.record() for row in others] == [each for meta, each in stored.items() if meta.key_id == "_IK_a_s_p"]
    assert metastore.load_many(list(stored)) == stored
    assert [metastore.load(meta) for meta in stored] == list(stored.values())
    assert metastore.count() == len(list(metastore.scan())) == len(stored) + 1
    assert len(list(metastore.children(KeyMeta("_SK_s_p", 60)))) == 2
