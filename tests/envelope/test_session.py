"""Sessions: one per partition, what they encrypt, and which cached keys they use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_asherah.envelope.files import FILE_START
from django_asherah.envelope.partition import Partition
from django_asherah.envelope.records import MAX_PAYLOAD_LENGTH, KeyMeta, decode_row
from django_asherah.envelope.session import Session
from django_asherah.exceptions import DecryptionError, EncryptionError, PartitionMismatchError
from tests.envelope.fakes import DAY, IK_ID, START, World

WAYS_TO_ENCRYPT = pytest.mark.parametrize("encrypt", [Session.encrypt, Session.encrypt_compact])


def test_a_partition_has_one_session(world: World) -> None:
    session = world.factory.get_session("p")
    assert world.factory.get_session("p") is session
    assert world.factory.get_session("q") is not session
    assert world.factory.sessions == {"p": session, "q": world.factory.get_session("q")}


def test_no_more_sessions_are_kept_than_the_cache_has_room_for() -> None:
    world = World(cache_size=2)
    for name in "abc":
        session = world.factory.get_session(name)
        assert session.decrypt(session.encrypt(name.encode())) == name.encode()
    assert list(world.factory.sessions) == ["a", "b"]


def test_clear_keeps_the_sessions(world: World) -> None:
    session = world.factory.get_session("p")
    sessions = world.factory.sessions
    world.factory.clear()
    assert world.factory.sessions is sessions
    assert sessions == {"p": session}


@WAYS_TO_ENCRYPT
def test_the_longest_value_is_encrypted_and_a_longer_one_refused(
    world: World, encrypt: Callable[[Session, bytes], str | bytes]
) -> None:
    session, longest = world.factory.get_session("p"), bytes(MAX_PAYLOAD_LENGTH)
    assert session.decrypt(encrypt(session, longest)) == longest
    with pytest.raises(EncryptionError, match=r"^a value of 67108865 bytes is over the limit of 67108864$"):
        encrypt(session, longest + b"x")


@WAYS_TO_ENCRYPT
def test_a_key_that_is_given_seals_for_its_own_partition_alone(
    world: World, encrypt: Callable[..., str | bytes]
) -> None:
    keys = world.factory.current_keys(["p", "q"])
    session = world.factory.get_session("p")
    assert session.decrypt(encrypt(session, b"x", keys["p"])) == b"x"
    with pytest.raises(PartitionMismatchError, match="the record names key _IK_q_"):
        encrypt(session, b"x", keys["q"])


@WAYS_TO_ENCRYPT
@pytest.mark.parametrize("payload", ["text", None, 5, bytearray(b"x"), memoryview(b"x")])
def test_only_bytes_are_encrypted(world: World, encrypt: Callable[[Session, Any], str | bytes], payload: Any) -> None:
    with pytest.raises(EncryptionError, match=f"^only bytes can be encrypted, not {type(payload).__name__}$"):
        encrypt(world.factory.get_session("p"), payload)
    assert world.taken_calls() == {}


@WAYS_TO_ENCRYPT
def test_an_expired_key_that_is_cached_takes_no_writes(
    world: World, encrypt: Callable[[Session, bytes], str | bytes]
) -> None:
    session = world.factory.get_session("p")
    assert session.read(encrypt(session, b"x")).key.parent_key_meta == KeyMeta(IK_ID, START)
    world.clock.now = START + 91 * DAY
    assert session.read(encrypt(session, b"x")).key.parent_key_meta == KeyMeta(IK_ID, START + 91 * DAY)


def test_a_record_tells_when_it_was_written_in_whole_seconds(world: World) -> None:
    world.clock.now = START + 12.9
    assert decode_row(world.factory.get_session("p").encrypt(b"x")).key.created == START + 12


@pytest.mark.parametrize("way", ["encrypt", "encrypt_compact", "decrypt"])
def test_a_key_in_use_is_not_the_one_that_makes_room(way: str) -> None:
    world = World(cache_size=3)
    others = [decode_row(world.factory.get_session(f"other {n}").encrypt(b"x")).key.parent_key_meta for n in range(10)]
    session = world.factory.get_session("p")
    record = session.encrypt(b"x")
    value: Any = record if way == "decrypt" else b"x"
    world.taken_calls()
    for other in others:
        getattr(session, way)(value)
        world.factory.load_keys([other])
    getattr(session, way)(value)
    assert world.taken_calls().keys() == {"load_many"}


def test_a_files_cipher_is_had_from_its_record_again(world: World) -> None:
    record, stream = world.factory.get_session("p").start_file()
    chunk = stream.seal(0, b"chunk", last=True)
    assert world.new_process().get_session("p").open_file(record).open(0, chunk, last=True) == b"chunk"
    assert world.factory.get_session("p").decrypt(record) == FILE_START


@pytest.mark.parametrize("payload", [b"", b"A", FILE_START[:-1], FILE_START + b"x", b"\xff"])
def test_another_record_begins_no_file(world: World, payload: bytes) -> None:
    session = world.factory.get_session("p")
    with pytest.raises(DecryptionError, match=r"^the record opens, but is not that of such a file$"):
        session.open_file(session.encrypt(payload))


def test_a_factory_and_a_session_tell_what_they_were_made_of(world: World) -> None:
    factory = world.factory
    assert (factory.service, factory.product, factory.key_suffix) == ("svc", "prod", "")
    assert (factory.metastore, factory.kms, factory.policy) == (world.metastore, world.kms, world.policy)
    assert factory.get_session("p").partition == Partition("p", "svc", "prod")
