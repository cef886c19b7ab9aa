"""One key table with the Rust core, AWS KMS in two regions on loopback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import boto3
import pytest
from pytest_django import Settings

from django_asherah import engine, lifecycle
from tests.databases import as_asherah, execute, url_of
from tests.interop.peers import Peer, base_config, key_of, until
from tests.moto_servers import ACCESS, MotoRegion, create_key, moto_region, refused_url

pytestmark = pytest.mark.slow

REGIONS = ("us-west-2", "us-east-1")
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-west-2"}


@pytest.fixture(scope="module")
def moto() -> Any:
    with moto_region(REGIONS[0]) as server:
        yield server


@pytest.fixture(scope="module")
def arns(moto: MotoRegion) -> dict[str, str]:
    """One server plays all regions, because the SDK knows one endpoint only."""
    make: Any = boto3.client
    east = make("kms", region_name=REGIONS[1], endpoint_url=moto.url, **ACCESS)
    return {REGIONS[0]: moto.arn, REGIONS[1]: create_key(east)}


def configure(settings: Settings, alias: str, arns: dict[str, str], url: str, preferred: str) -> None:
    settings.ASHERAH = {
        key: value for key, value in as_asherah(DATABASE=alias).items() if key not in ("KMS", "KMS_OPTIONS")
    } | {
        "REGIONS": arns,
        "PREFERRED_REGION": preferred,
        "KMS_OPTIONS": {
            "endpoint_urls": dict.fromkeys(arns, url),
            "session": boto3.Session(aws_access_key_id="test", aws_secret_access_key="test"),
        },
    }


@pytest.fixture
def start_peer(
    shared_alias: str, moto: MotoRegion, arns: dict[str, str], settings: Settings, start: Callable[..., Peer]
) -> Callable[[], Peer]:
    configure(settings, shared_alias, arns, moto.url, REGIONS[0])
    config = base_config("rust", url_of(shared_alias)) | {
        "KMS": "aws",
        "RegionMap": arns,
        "PreferredRegion": REGIONS[0],
    }
    return lambda: start("rust", config, AWS_ENDPOINT_URL=moto.url, **ENVIRONMENT)


@pytest.fixture
def peer(start_peer: Callable[[], Peer]) -> Peer:
    return start_peer()


def test_what_the_sdk_writes_django_reads_in_each_region_alone(
    peer: Peer, shared_alias: str, moto: MotoRegion, arns: dict[str, str], settings: Settings
) -> None:
    text = peer.encrypt("p", b"theirs")
    assert engine.get_session("p").decrypt(text) == b"theirs"
    for region in REGIONS:
        configure(settings, shared_alias, arns, moto.url, region)
        options = settings.ASHERAH["KMS_OPTIONS"]
        urls = {other: moto.url if other == region else refused_url() for other in REGIONS}
        settings.ASHERAH = {**settings.ASHERAH, "KMS_OPTIONS": {**options, "endpoint_urls": urls}}
        assert engine.get_session("p").decrypt(text) == b"theirs"


def test_what_django_writes_the_sdk_reads(peer: Peer) -> None:
    assert peer.decrypt("p", engine.get_session("p").encrypt(b"ours")) == b"ours"
    assert lifecycle.verify_keys().problems == []


def test_a_rewrapped_system_key_is_read_by_the_sdk(
    peer: Peer,
    shared_alias: str,
    moto: MotoRegion,
    arns: dict[str, str],
    settings: Settings,
    start: Callable[..., Peer],
) -> None:
    configure(settings, shared_alias, {REGIONS[1]: arns[REGIONS[1]]}, moto.url, REGIONS[1])
    text = engine.get_session("p").encrypt(b"in the east alone")
    configure(settings, shared_alias, arns, moto.url, REGIONS[0])
    assert len(lifecycle.rewrap().rewrapped) == 1
    assert peer.decrypt("p", text) == b"in the east alone"
    assert lifecycle.verify_keys().problems == []


@pytest.mark.parametrize("payload", [b"", b"\0", bytes(range(256)) * 4096], ids=["empty", "one byte", "a mebibyte"])
@pytest.mark.parametrize("partition", ["tenant-7", "tenant_7", "two words", "Alice", "alice", "Ünïcode-päртиция"])
def test_every_partition_and_size_goes_both_ways(peer: Peer, partition: str, payload: bytes) -> None:
    session = engine.get_session(partition)
    assert session.decrypt(peer.encrypt(partition, payload)) == payload
    assert peer.decrypt(partition, session.encrypt(payload)) == payload


def test_the_very_first_keys_are_raced_for(shared_alias: str, start_peer: Callable[[], Peer]) -> None:
    for _ in range(3):
        execute(shared_alias, "DELETE FROM encryption_key")
        engine.reset()
        peers = [start_peer() for _ in range(2)]
        for peer in peers:
            peer.begin({"do": "encrypt", "partition": "p", "data": "eA=="})
        texts = [engine.get_session("p").encrypt(b"x"), *(peer.end() for peer in peers)]
        created = {key_of(text).created for text in texts}
        # More than one only if the minute changed while they raced.
        assert len(created) == 1 or max(created) - min(created) == 60
        rows = execute(
            shared_alias, "SELECT id FROM encryption_key WHERE id IN ('_SK_suite_tests', '_IK_p_suite_tests')"
        )
        assert 2 <= len(rows) <= 2 * len(created)
        for text in texts:
            assert engine.get_session("p").decrypt(text) == b"x"
            assert [peer.decrypt("p", text) for peer in peers] == [b"x", b"x"]
        for peer in peers:
            peer.close()


def test_revoked_and_rotated_keys_are_left_by_the_sdk(peer: Peer) -> None:
    old = key_of(peer.encrypt("p", b"x"))
    lifecycle.revoke(old.key_id, old.created)
    lifecycle.rotate()
    new = key_of(engine.get_session("p").encrypt(b"x"))
    until(lambda: key_of(peer.encrypt("p", b"x")) == new)
    assert engine.get_session("p").decrypt(peer.encrypt("p", b"new")) == b"new"
