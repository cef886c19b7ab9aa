"""The 81 states of Asherah's Go SDK: {SK, IK} × {in cache, in metastore} × {valid, retired, absent}.

What must come out is written down as the rules of ``asherah.md`` §6, not taken from the code:

- a key in the cache is trusted until its revoke check; one that isn't there is loaded from the metastore;
- new writes need an intermediate key that is valid, under a system key that is valid; else a new one is made, under the
  latest valid system key, which is made too if need be;
- reads take exactly the key that the record names, retired or not.
"""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from django_asherah.envelope.aead import Cipher
from django_asherah.envelope.clocks import Moment
from django_asherah.envelope.keyring import KeyRing
from django_asherah.envelope.keys import CryptoKey
from django_asherah.envelope.records import (
    DataRowKey,
    DataRowRecord,
    EnvelopeKeyRecord,
    KeyMeta,
    decode_row,
    encode_row,
)
from django_asherah.exceptions import KeyNotFoundError
from tests.envelope.fakes import IK_ID, SK_ID, START, World

VALID, RETIRED, ABSENT = "valid", "retired", "absent"
STATES = list(itertools.product((VALID, RETIRED, ABSENT), repeat=4))
SK, IK = KeyMeta(SK_ID, START), KeyMeta(IK_ID, START)
SK_BYTES, IK_BYTES = b"s" * 32, b"i" * 32
LATER = START + 600


def build(sk_cached: str, sk_stored: str, ik_cached: str, ik_stored: str) -> World:
    """Return an engine in which both keys are in these states."""
    world = World()
    world.clock.now = LATER
    sk_record = EnvelopeKeyRecord(created=START, key=Cipher(b"m" * 32).seal(SK_BYTES))
    ik_record = EnvelopeKeyRecord(created=START, key=Cipher(SK_BYTES).seal(IK_BYTES), parent_key_meta=SK)
    for meta, record, state in ((SK, sk_record, sk_stored), (IK, ik_record, ik_stored)):
        if state != ABSENT:
            world.metastore.records[meta] = record
            world.metastore.revoke(meta, state == RETIRED)
    sk_until = 0.0 if sk_cached == RETIRED else world.policy.expires_at(START)
    hold(world.factory.system_keys, SK, sk_record, SK_BYTES, sk_cached, sk_until)
    hold(world.factory.intermediate_keys, IK, ik_record, IK_BYTES, ik_cached, sk_until)
    return world


def hold(ring: KeyRing, meta: KeyMeta, record: EnvelopeKeyRecord, raw: bytes, state: str, valid_until: float) -> None:
    """Put a key into a ring's cache, read just now."""
    if state == ABSENT:
        return
    revoked = state == RETIRED
    key = CryptoKey(
        meta,
        EnvelopeKeyRecord(
            revoked=revoked, created=record.created, key=record.key, parent_key_meta=record.parent_key_meta
        ),
        Cipher(raw),
    )
    key.trust_until(LATER + 3600)
    key.allow_writes(0.0 if revoked else valid_until, LATER + 3600, Moment(LATER, LATER))
    ring.cache.put(key)
    ring.cache.make_current(key)


def expected_write(sk_cached: str, sk_stored: str, ik_cached: str, ik_stored: str) -> tuple[Counter[str], bool, bool]:
    """Return the calls of a write, and whether it makes a new system key and a new intermediate key."""
    calls: Counter[str] = Counter()
    if ik_cached == VALID and sk_cached != RETIRED:
        return calls, False, False
    calls["load_latest"] += 1
    sk_known = sk_cached
    if ik_stored == VALID:
        if sk_known == ABSENT:  # the one that the intermediate key names
            calls["load"] += 1
            if sk_stored != ABSENT:
                calls["unwrap"] += 1
                sk_known = sk_stored
        if sk_known == VALID:
            return calls, False, False
    new_sk = False
    if sk_cached != VALID:
        calls["load_latest"] += 1
        if sk_stored == VALID:
            if sk_known == ABSENT:
                calls["unwrap"] += 1
        else:
            calls["wrap"] += 1
            calls["store"] += 1
            new_sk = True
    calls["store"] += 1
    return calls, new_sk, True


@pytest.mark.parametrize("states", STATES, ids=" ".join)
def test_write(states: tuple[str, str, str, str]) -> None:
    world = build(*states)
    session = world.factory.get_session("p")
    record = decode_row(session.encrypt(b"payload"))
    calls, new_sk, new_ik = expected_write(*states)
    assert world.taken_calls() == dict(calls)
    used = record.key.parent_key_meta
    minute = LATER - LATER % 60
    assert used == (KeyMeta(IK_ID, minute) if new_ik else IK)
    if new_ik:
        parent = world.metastore.records[used].parent_key_meta
        assert parent == (KeyMeta(SK_ID, minute) if new_sk else SK)
    assert session.decrypt(encode_row(record)) == b"payload"


@pytest.mark.parametrize(
    "states", [state for state in STATES if state[1] != ABSENT or state[0] != ABSENT], ids=" ".join
)
def test_what_a_new_key_wrote_another_process_reads(states: tuple[str, str, str, str]) -> None:
    world = build(*states)
    _, new_sk, new_ik = expected_write(*states)
    text = world.factory.get_session("p").encrypt(b"payload")
    if new_ik and (new_sk or states[1] != ABSENT):
        assert world.new_process().get_session("p").decrypt(text) == b"payload"


@pytest.mark.parametrize("states", STATES, ids=" ".join)
def test_read(states: tuple[str, str, str, str]) -> None:
    sk_cached, sk_stored, ik_cached, ik_stored = states
    world = build(*states)
    sealed_key, sealed = Cipher(IK_BYTES).seal_row(b"payload")
    text = encode_row(DataRowRecord(DataRowKey(LATER, sealed_key, IK), sealed))
    session = world.factory.get_session("p")
    calls: Counter[str] = Counter()
    found = ik_cached != ABSENT
    if not found:
        calls["load"] += 1
        if ik_stored != ABSENT:
            found = sk_cached != ABSENT
            if not found:
                calls["load"] += 1
                found = sk_stored != ABSENT
                calls["unwrap"] += found
    if found:
        assert session.decrypt(text) == b"payload"
    else:
        with pytest.raises(KeyNotFoundError):
            session.decrypt(text)
    assert world.taken_calls() == {name: count for name, count in calls.items() if count}


@pytest.mark.parametrize("sk_cached", [True, False])
@pytest.mark.parametrize("ik_cached", [True, False])
def test_expired_keys_take_no_writes_and_give_every_read(sk_cached: bool, ik_cached: bool) -> None:
    world = World()
    session = world.factory.get_session("p")
    text = session.encrypt(b"old")
    if not sk_cached:
        world.factory.system_keys.clear()
    if not ik_cached:
        world.factory.intermediate_keys.clear()
    world.clock.now = START + 90 * 24 * 3600 + 1
    assert session.decrypt(text) == b"old"
    new = decode_row(session.encrypt(b"new")).key.parent_key_meta
    minute = int(world.clock.now) - int(world.clock.now) % 60
    assert new == KeyMeta(IK_ID, minute)
    assert world.metastore.records[new].parent_key_meta == KeyMeta(SK_ID, minute)
