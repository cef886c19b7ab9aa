"""Keys in the engine: opened ones are cipher objects, raw ones are wiped, and the frames of an error hold none."""

from __future__ import annotations

import copy
import gc
import json
import pickle
from typing import Any

import pytest

from django_asherah.envelope import aead
from django_asherah.envelope.aead import Cipher
from django_asherah.exceptions import AsherahError, DecryptionError, KMSError, MetastoreError
from django_asherah.kms.static import StaticKMS
from tests.envelope.fakes import World
from tests.leaks.search import holding_frames, holds

STATIC_KEY = b"5tat1c-canary-0123456789abcdef!!"


class Keys:
    """Random bytes whose keys can be recognised. Nonces are no secret, and look otherwise."""

    def __init__(self) -> None:
        self.drawn: list[bytes] = []

    def __call__(self, length: int) -> bytes:
        nonces = b"nonce-%06d" % len(self.drawn) * 2
        if length < 32:
            return nonces[:length]
        self.drawn.append(b"R4ndom-canary-key-%012d!!" % len(self.drawn))
        return (self.drawn[-1] + nonces)[:length]


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def world(keys: Keys) -> World:
    return World(random=keys)


def changed(text: str, member: str) -> str:
    document = json.loads(text)
    place = document if member == "Data" else document["Key"]
    place[member] = ("B" if place[member][0] == "A" else "A") + place[member][1:]
    return json.dumps(document)


@pytest.mark.parametrize("member", ["Data", "Key"])
def test_the_frames_of_a_record_that_does_not_open_hold_no_key(world: World, keys: Keys, member: str) -> None:
    session = world.factory.get_session("p")
    text = session.encrypt(b"payload")
    with pytest.raises(DecryptionError) as caught:
        session.decrypt(changed(text, member))
    assert len(keys.drawn) >= 3
    assert holding_frames(caught.value, *keys.drawn) == []


@pytest.mark.parametrize("part", ["kms", "metastore"])
@pytest.mark.parametrize("work", ["encrypt", "decrypt"])
def test_the_frames_of_a_failing_part_hold_no_key(world: World, keys: Keys, part: str, work: str) -> None:
    text = world.factory.get_session("p").encrypt(b"payload")
    cold = world.new_process().get_session("p")
    getattr(world, part).down = True
    with pytest.raises((KMSError, MetastoreError)) as caught:
        cold.encrypt(b"payload") if work == "encrypt" else cold.decrypt(text)
    assert holding_frames(caught.value, *keys.drawn) == []


def test_the_frames_hold_no_key_when_one_is_made_and_can_not_be_stored(world: World, keys: Keys) -> None:
    class Refusing(type(world.metastore)):  # type: ignore[misc]
        def store(self, key_id: str, record: Any) -> bool:
            raise MetastoreError("full")

    world.metastore.__class__ = Refusing
    with pytest.raises(MetastoreError) as caught:
        world.factory.get_session("p").encrypt(b"payload")
    assert len(keys.drawn) >= 1
    assert holding_frames(caught.value, *keys.drawn) == []


def test_nothing_that_holds_a_key_shows_it_or_can_be_pickled(world: World, keys: Keys) -> None:
    session = world.factory.get_session("p")
    session.encrypt(b"payload")
    kms = StaticKMS(STATIC_KEY)
    key = world.factory.intermediate_keys.current("_IK_p_svc_prod")
    for thing in (session, world.factory, kms, key, key.cipher, key.record, Cipher(STATIC_KEY)):
        assert holds(repr(thing), *keys.drawn, STATIC_KEY) == []
        assert holds(str(thing), *keys.drawn, STATIC_KEY) == []
    for thing in (session, world.factory, kms, key, key.cipher):
        for make in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError):
                make(thing)  # type: ignore[operator]


def test_opened_keys_are_held_as_ciphers_and_no_buffer_is_left(world: World, keys: Keys) -> None:
    session = world.factory.get_session("p")
    text = session.encrypt(b"payload")
    cold = world.new_process()
    assert cold.get_session("p").decrypt(text) == b"payload"
    system_and_intermediate = set(keys.drawn[:2])
    # By type: isinstance() asks a lazy object of Django's for its class, and so sets up what another test has left.
    left = [thing for thing in gc.get_objects() if issubclass(type(thing), bytearray)]
    assert not [buffer for buffer in left if holds(bytes(buffer), *system_and_intermediate)]
    for ring in (cold.system_keys, cold.intermediate_keys):
        for key in ring.cache.opened.values():
            assert len(key.compact_prefix) == 12
            assert {type(getattr(key, name)) for name in key.__slots__ if name != "compact_prefix"} <= {
                *(type(key.meta), type(key.record), Cipher, float, bool, int),
            }


def test_raw_keys_are_wiped_however_the_work_ends(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """Every buffer that the KMS or the system key gave out is all zeros once the key is a cipher, or has failed."""
    given: list[bytearray] = []

    def remember(method: Any) -> Any:
        def call(*arguments: Any) -> bytearray:
            given.append(method(*arguments))
            return given[-1]

        return call

    session = world.factory.get_session("p")
    text = session.encrypt(b"payload")
    monkeypatch.setattr(world.kms, "decrypt_key", remember(world.kms.decrypt_key))
    monkeypatch.setattr(aead.Cipher, "open_key", remember(aead.Cipher.open_key))
    assert world.new_process().get_session("p").decrypt(text) == b"payload"
    assert len(given) == 3
    assert {bytes(buffer) for buffer in given} == {bytes(32)}


def test_a_wrong_key_length_is_an_error_that_leaves_no_key(world: World) -> None:
    cipher = Cipher(STATIC_KEY)
    for length in (0, 31, 33):
        with pytest.raises(AsherahError) as caught:
            cipher.open_key(cipher.seal(b"\xab" * length))
        assert holding_frames(caught.value, STATIC_KEY, b"\xab" * 31) == []
