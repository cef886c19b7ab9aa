"""Region suffixes, with both official cores: each region has a DynamoDB table, whose rows are copied to the other's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import boto3
import pytest
from pytest_django import Settings

from django_asherah import engine, lifecycle
from django_asherah.envelope.session import SessionFactory
from django_asherah.exceptions import PartitionMismatchError
from django_asherah.kms.static import StaticKMS
from django_asherah.metastores.dynamodb import DynamoDBMetastore
from tests.databases import as_asherah
from tests.fields.helpers import set_raw
from tests.interop.peers import STATIC_KEY, Peer, PeerError, key_of
from tests.moto_servers import ACCESS, MotoRegion, dynamodb_table, moto_region
from tests.testapp.models import Compact, Note

pytestmark = pytest.mark.slow

WEST, EAST = "us-west-2", "us-east-1"
OTHER = {WEST: EAST, EAST: WEST}
OURS, PLAIN = "_IK_p_suite_tests_", "_IK_p_suite_tests"


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, MotoRegion]]:
    with moto_region(WEST) as west, moto_region(EAST) as east:
        yield {WEST: west, EAST: east}


@pytest.fixture
def tables(servers: dict[str, MotoRegion]) -> Iterator[dict[str, Any]]:
    """A client of each region's table."""
    with ExitStack() as stack:
        yield {region: stack.enter_context(dynamodb_table(server)) for region, server in servers.items()}


@pytest.fixture
def replicate(tables: dict[str, Any]) -> Callable[[], None]:
    """Copy every row of each table to the other, as a global table does."""

    def replicate() -> None:
        rows = {region: client.scan(TableName="EncryptionKey")["Items"] for region, client in tables.items()}
        for region, items in rows.items():
            for item in items:
                tables[OTHER[region]].put_item(TableName="EncryptionKey", Item=item)

    return replicate


@pytest.fixture(params=["rust", "go"])
def start_core(
    request: pytest.FixtureRequest, servers: dict[str, MotoRegion], tables: Any, start: Callable[..., Peer]
) -> Callable[..., Peer]:
    """Start the core in a region, with the region suffix or without one."""
    core: str = request.param

    def start_core(region: str, *, suffix: bool = True) -> Peer:
        config = {
            "ServiceName": "suite",
            "ProductID": "tests",
            "Metastore": "dynamodb",
            "DynamoDBEndpoint": servers[region].url,
            "DynamoDBRegion": region,
            "DynamoDBTableName": "EncryptionKey",
            "EnableRegionSuffix": suffix,
            "KMS": "static",
            "EnableSessionCaching": False,
        }
        if core == "rust":
            config |= {"StaticMasterKeyHex": STATIC_KEY.hex(), "ConfigDriftForceRun": True}
        environment = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": region}
        return start(core, config, AWS_ENDPOINT_URL=servers[region].url, **environment)

    return start_core


@pytest.fixture
def ours(servers: dict[str, MotoRegion], tables: Any) -> Callable[..., SessionFactory]:
    """Return our engine in a region."""

    def ours(region: str, suffix: str, *others: str) -> SessionFactory:
        make: Any = boto3.Session
        metastore = DynamoDBMetastore(region=region, endpoint_url=servers[region].url, session=make(**ACCESS))
        return SessionFactory(
            "suite", "tests", metastore, StaticKMS(STATIC_KEY), key_suffix=suffix, read_suffixes=others
        )

    return ours


@pytest.mark.parametrize("suffix", [EAST, ""], ids=["suffix", "no suffix"])
def test_what_a_core_writes_in_one_region_is_read_in_the_other(
    start_core: Callable[..., Peer],
    replicate: Callable[[], None],
    ours: Callable[..., SessionFactory],
    suffix: str,
) -> None:
    text = start_core(WEST).encrypt("p", b"theirs")
    assert key_of(text).key_id == OURS + WEST
    replicate()
    assert ours(EAST, suffix, WEST).get_session("p").decrypt(text) == b"theirs"
    with pytest.raises(PartitionMismatchError):
        ours(EAST, suffix).get_session("p").decrypt(text)
    with pytest.raises(PartitionMismatchError):
        ours(EAST, suffix, WEST).get_session("q").decrypt(text)


def test_what_a_core_wrote_before_it_had_a_suffix_is_read(
    start_core: Callable[..., Peer], replicate: Callable[[], None], ours: Callable[..., SessionFactory]
) -> None:
    text = start_core(WEST, suffix=False).encrypt("p", b"before")
    assert key_of(text).key_id == PLAIN
    replicate()
    for region in (WEST, EAST):
        assert ours(region, region).get_session("p").decrypt(text) == b"before"


@pytest.mark.parametrize("suffix", [WEST, ""], ids=["suffix", "no suffix"])
def test_what_is_written_here_a_core_with_another_suffix_reads(
    start_core: Callable[..., Peer],
    replicate: Callable[[], None],
    ours: Callable[..., SessionFactory],
    suffix: str,
) -> None:
    text = ours(WEST, suffix).get_session("p").encrypt(b"ours")
    replicate()
    for region in (WEST, EAST):
        assert start_core(region).decrypt("p", text) == b"ours"


def test_both_regions_write_and_read_on_over_replicated_tables(
    start_core: Callable[..., Peer], replicate: Callable[[], None], ours: Callable[..., SessionFactory]
) -> None:
    peer, factory = start_core(WEST), ours(EAST, EAST, WEST)
    texts = []
    for number in range(3):
        texts += [peer.encrypt("p", b"%d" % number), factory.get_session("p").encrypt(b"%d" % number)]
        replicate()
        factory.system_keys.rotate(factory.system_key_id)
        factory.intermediate_keys.rotate(OURS + EAST)
        replicate()
    wanted = [b"0", b"0", b"1", b"1", b"2", b"2"]
    assert [peer.decrypt("p", text) for text in texts] == wanted
    fresh = ours(WEST, WEST, EAST).get_session("p")
    assert [fresh.decrypt(text) for text in texts] == wanted
    with pytest.raises(PeerError):
        peer.decrypt("q", texts[1])


@pytest.mark.django_db
def test_fields_and_commands_over_the_other_regions_keys(
    start_core: Callable[..., Peer],
    replicate: Callable[[], None],
    servers: dict[str, MotoRegion],
    settings: Settings,
) -> None:
    make: Any = boto3.Session
    settings.ASHERAH = as_asherah(
        METASTORE="dynamodb",
        METASTORE_OPTIONS={"region": EAST, "endpoint_url": servers[EAST].url, "session": make(**ACCESS)},
        KMS_OPTIONS={"key": STATIC_KEY.hex()},
        KEY_SUFFIX=EAST,
        READ_SUFFIXES=[WEST],
    )
    text = start_core(WEST).encrypt("default", b"theirs")
    replicate()
    note, compact = Note.objects.create(body="own"), Compact.objects.create(plain="own", body="own")
    set_raw(note, "body", text)
    set_raw(compact, "plain", text)
    engine.reset()
    assert Note.objects.get().body == "theirs"
    assert (Compact.objects.get().plain, Compact.objects.get().body) == ("theirs", "own")
    assert lifecycle.verify_data(["testapp.Note", "testapp.Compact"]).bad.total == 0
    report = lifecycle.reencrypt(["testapp.Note.body", "testapp.Compact.plain"])
    assert (dict(report.rewritten), report.bad.total) == ({"testapp.Note.body": 1, "testapp.Compact.plain": 1}, 0)
    replicate()
    rewritten: Any = Note.objects.values_list(Note._meta.get_field("body").raw_value(), flat=True).get()  # type: ignore[union-attr]
    assert key_of(rewritten).key_id == f"_IK_default_suite_tests_{EAST}"
    assert start_core(WEST).decrypt("default", rewritten) == b"theirs"
