"""One key table with the official SDKs, static KMS: both directions, live."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections
from pytest_django import Settings

from django_asherah import engine, lifecycle
from django_asherah.envelope.records import KeyMeta
from django_asherah.envelope.session import SessionFactory
from django_asherah.exceptions import DecryptionError
from django_asherah.kms.static import StaticKMS
from django_asherah.metastores.database import DatabaseMetastore
from tests.databases import VENDOR, as_asherah, execute, url_of
from tests.fields.helpers import raw, set_raw
from tests.interop.conftest import CORES
from tests.interop.peers import STATIC_KEY, Peer, PeerError, key_of, static_config, until
from tests.testapp.models import Note

pytestmark = pytest.mark.slow

PARTITIONS = [
    "p",
    "tenant-7",
    "tenant_7",
    "a_b-c_d",
    "two words",
    "Alice",
    "alice",
    "Ünïcode-päртиция",
    "王🔑",
    "a.b/c",
]
PAYLOADS = {"empty": b"", "one byte": b"\0", "text": "héllo".encode(), "a mebibyte": bytes(range(256)) * 4096}


def key_rows(alias: str) -> list[str]:
    rows = execute(alias, "SELECT id FROM encryption_key ORDER BY id")
    return [key_id for (key_id,) in rows if key_id.startswith(("_SK_", "_IK_"))]


@pytest.mark.parametrize("partition", PARTITIONS)
def test_what_the_sdk_writes_django_reads(peer: Peer, partition: str) -> None:
    session = engine.get_session(partition)
    assert session.decrypt(peer.encrypt(partition, b"theirs")) == b"theirs"


@pytest.mark.parametrize("partition", PARTITIONS)
def test_what_django_writes_the_sdk_reads(peer: Peer, partition: str) -> None:
    assert peer.decrypt(partition, engine.get_session(partition).encrypt(b"ours")) == b"ours"


@pytest.mark.parametrize("payload", PAYLOADS)
def test_payloads_of_every_size_go_both_ways(peer: Peer, payload: str) -> None:
    data, session = PAYLOADS[payload], engine.get_session("p")
    assert session.decrypt(peer.encrypt("p", data)) == data
    assert peer.decrypt("p", session.encrypt(data)) == data


def test_twins_in_upper_and_lower_case_have_keys_of_their_own(peer: Peer, shared_alias: str) -> None:
    upper, lower = peer.encrypt("Alice", b"A"), engine.get_session("alice").encrypt(b"a")
    assert {*key_rows(shared_alias)} == {"_IK_Alice_suite_tests", "_IK_alice_suite_tests", "_SK_suite_tests"}
    assert engine.get_session("Alice").decrypt(upper) == b"A"
    assert peer.decrypt("alice", lower) == b"a"


@pytest.mark.skipif(VENDOR == "sqlite", reason="an encrypted field of the default database needs keys that others see")
def test_an_encrypted_field_and_the_sdk_share_a_column(peer: Peer, shared_alias: str) -> None:
    note = Note.objects.create(body="from Django")
    assert peer.decrypt("default", raw(note, "body")) == b"from Django"
    set_raw(note, "body", peer.encrypt("default", b"vom SDK"))
    note.refresh_from_db()
    assert note.body == "vom SDK"


@pytest.mark.parametrize("core", CORES)
def test_both_at_once_on_an_empty_table_make_one_key_of_each_kind(
    core: str, shared_alias: str, start: Callable[..., Peer]
) -> None:
    peers = [start(core, static_config(core, url_of(shared_alias))) for _ in range(2)]
    for round_ in range(25):
        partition = f"round-{round_}"
        for peer in peers:
            peer.begin({"do": "encrypt", "partition": partition, "data": "eA=="})
        ours = engine.get_session(partition).encrypt(b"x")
        theirs = [peer.end() for peer in peers]
        created = {key_of(text).created for text in (ours, *theirs)}
        # More than one only if the minute changed while they raced.
        assert len(created) == 1 or max(created) - min(created) == 60
        rows = execute(shared_alias, "SELECT COUNT(*) FROM encryption_key WHERE id = %s", [key_of(ours).key_id])
        assert rows[0][0] <= len(created)
        for text in (ours, *theirs):
            assert engine.get_session(partition).decrypt(text) == b"x"
            assert [peer.decrypt(partition, text) for peer in peers] == [b"x", b"x"]


@pytest.mark.parametrize("core", CORES)
def test_the_very_first_keys_are_raced_for(core: str, shared_alias: str, start: Callable[..., Peer]) -> None:
    config = static_config(core, url_of(shared_alias))
    for _ in range(5):
        execute(shared_alias, "DELETE FROM encryption_key WHERE id LIKE %s OR id LIKE %s", ["\\_SK%", "\\_IK%"])
        execute(shared_alias, "DELETE FROM encryption_key")
        engine.reset()
        peers = [start(core, config) for _ in range(2)]
        for peer in peers:
            peer.begin({"do": "encrypt", "partition": "p", "data": "eA=="})
        ours = engine.get_session("p").encrypt(b"x")
        texts = [ours, *(peer.end() for peer in peers)]
        created = {key_of(text).created for text in texts}
        assert len(key_rows(shared_alias)) <= 2 * len(created)
        for text in texts:
            assert engine.get_session("p").decrypt(text) == b"x"
            assert [peer.decrypt("p", text) for peer in peers] == [b"x", b"x"]
        for peer in peers:
            peer.close()


def test_a_key_that_django_revokes_is_left_by_the_sdk(peer: Peer) -> None:
    old = key_of(peer.encrypt("p", b"x"))
    lifecycle.revoke(old.key_id, old.created)
    lifecycle.rotate(expired=True)
    until(lambda: key_of(peer.encrypt("p", b"x")) != old)
    assert engine.get_session("p").decrypt(peer.encrypt("p", b"new")) == b"new"


def test_a_key_that_django_rotates_is_taken_up_by_the_sdk_and_the_old_one_still_opens(peer: Peer) -> None:
    text = peer.encrypt("p", b"old")
    lifecycle.rotate()
    new = key_of(engine.get_session("p").encrypt(b"new"))
    assert new != key_of(text)
    assert peer.decrypt("p", text) == b"old"
    assert peer.decrypt("p", engine.get_session("p").encrypt(b"new")) == b"new"


def revoke_in_the_table(alias: str, meta: KeyMeta) -> None:
    """Do what the official scripts for revocation do."""
    record = execute(alias, "SELECT key_record FROM encryption_key WHERE id = %s", [meta.key_id])[0][0]
    text = record if isinstance(record, str) else json.dumps(record)
    execute(
        alias,
        "UPDATE encryption_key SET key_record = %s WHERE id = %s",
        ['{"Revoked":true,' + text.strip()[1:], meta.key_id],
    )


def test_a_key_that_somebody_revokes_in_the_table_is_left_by_django(
    peer: Peer, shared_alias: str, settings: Settings
) -> None:
    old = key_of(peer.encrypt("p", b"x"))
    assert key_of(engine.get_session("p").encrypt(b"x")) == old
    revoke_in_the_table(shared_alias, old)
    assert key_of(engine.get_session("p").encrypt(b"x")) == old, "trusted until its revoke check"
    engine.reset()  # as a process that has just started
    new = engine.get_session("p").encrypt(b"x")
    assert key_of(new).created > old.created
    assert peer.decrypt("p", new) == b"x"


@pytest.mark.parametrize("core", CORES)
def test_a_key_that_the_sdk_rotates_is_taken_up_by_django(
    shared_alias: str, start: Callable[..., Peer], core: str
) -> None:
    # The SDKs make no second key within a minute, so the first one must be older.
    earlier = SessionFactory(
        "suite", "tests", DatabaseMetastore(shared_alias), StaticKMS(STATIC_KEY), clock=lambda: time.time() - 120
    )
    old = earlier.get_session("p").encrypt(b"old")
    peer = start(core, static_config(core, url_of(shared_alias)))
    revoke_in_the_table(shared_alias, key_of(old))
    theirs = peer.encrypt("p", b"theirs")
    assert key_of(theirs).created > key_of(old).created
    engine.reset()  # as at the revoke check
    assert key_of(engine.get_session("p").encrypt(b"x")) == key_of(theirs)
    assert engine.get_session("p").decrypt(old) == b"old"


def test_the_sdks_own_rows_disturb_nothing(shared_alias: str, start: Callable[..., Peer], db: None) -> None:
    peer = start("rust", static_config("rust", url_of(shared_alias)))
    text = peer.encrypt("p", b"x")
    rows = [key_id for (key_id,) in execute(shared_alias, "SELECT id FROM encryption_key")]
    assert [key_id for key_id in rows if key_id.startswith("__asherah_internal_config_drift_guard")]
    listing = lifecycle.list_keys()
    assert {key.meta.key_id for key in listing} == {"_SK_suite_tests", "_IK_p_suite_tests"}
    assert listing.other_rows == 1
    assert lifecycle.verify_keys().problems == []
    lifecycle.rotate()
    assert start("rust", static_config("rust", url_of(shared_alias))).decrypt("p", text) == b"x"


OFFICIAL_DDL = {
    "mysql": """CREATE TABLE encryption_key (
        id VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
        created TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, key_record TEXT NOT NULL,
        PRIMARY KEY (id, created), INDEX (created))""",
    "postgresql": """CREATE TABLE encryption_key (
        id VARCHAR(255) NOT NULL, created TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP, key_record JSONB NOT NULL,
        PRIMARY KEY (id, created))""",
    "sqlite": "",  # The Rust core makes it itself.
}


@pytest.mark.parametrize("core", CORES)
def test_a_table_that_the_sdks_ddl_made_serves_as_it_is(
    core: str, empty_alias: str, settings: Settings, start: Callable[..., Peer]
) -> None:
    if OFFICIAL_DDL[VENDOR]:
        execute(empty_alias, OFFICIAL_DDL[VENDOR])
    settings.ASHERAH = as_asherah(DATABASE=empty_alias, KMS_OPTIONS={"key": STATIC_KEY.hex()})
    config = static_config(core, _url(empty_alias))
    if core == "go" and VENDOR == "postgresql":
        config["ConnectionString"] = config["ConnectionString"] + "&search_path=empty"
    elif VENDOR == "postgresql":
        config["ConnectionString"] = config["ConnectionString"] + "?options=-csearch_path%3Dempty"
    peer = start(core, config)
    text = peer.encrypt("p", b"theirs")
    session = engine.get_session("p")
    assert session.decrypt(text) == b"theirs"
    assert peer.decrypt("p", session.encrypt(b"ours")) == b"ours"
    assert lifecycle.verify_keys().problems == []
    lifecycle.rotate()
    lifecycle.revoke("_IK_p_suite_tests")
    lifecycle.rotate(expired=True)
    assert peer.decrypt("p", engine.get_session("p").encrypt(b"ours")) == b"ours"
    assert {key.kind for key in lifecycle.list_keys()} == {"system", "intermediate"}


def _url(alias: str) -> Any:
    connections[alias].ensure_connection()
    return url_of(alias)


def test_a_member_that_stands_twice(peer: Peer) -> None:
    """As the explanation of hostile input says: Go takes the last one, and so do we; Rust refuses. None opens a mix."""
    session = engine.get_session("p")
    first, last = (json.loads(session.encrypt(payload)) for payload in (b"first", b"last"))
    twice = ",".join(f'"{name}":{json.dumps(record[name])}' for record in (first, last) for name in ("Key", "Data"))
    assert session.decrypt(f"{{{twice}}}") == b"last"
    if peer.core == "go":
        assert peer.decrypt("p", f"{{{twice}}}") == b"last"
    else:
        with pytest.raises(PeerError):
            peer.decrypt("p", f"{{{twice}}}")
    mixed = f'"Key":{json.dumps(first["Key"])},"Data":"{last["Data"]}"'
    with pytest.raises(PeerError):
        peer.decrypt("p", f"{{{mixed}}}")
    with pytest.raises(DecryptionError):
        session.decrypt(f"{{{mixed}}}")
