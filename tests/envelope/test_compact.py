"""The compact record format: as strict as the JSON one, and the one is turned into the other without a key."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_asherah.envelope import records
from django_asherah.envelope.compact import decode_compact, encode_compact, is_compact
from django_asherah.envelope.records import DataRowKey, DataRowRecord, KeyMeta, decode_row
from django_asherah.exceptions import (
    AsherahError,
    DecryptionError,
    InvalidRecordError,
    KeyNotFoundError,
    PartitionMismatchError,
)
from tests.envelope.fakes import IK_ID, START, World, chain_text

KEY_60 = bytes(range(60))
META = KeyMeta("_IK_p_svc_prod", 0x65_5A_0B_80)
ROW = DataRowRecord(DataRowKey(META.created, KEY_60, META), bytes(range(100, 130)))


def test_the_layout_byte_for_byte() -> None:
    fingerprint = hashlib.sha256(b"_IK_p_svc_prod").digest()[:6]
    expected = b"\x01" + bytes.fromhex("00655a0b80") + fingerprint + KEY_60 + bytes(range(100, 130))
    assert encode_compact(ROW) == expected
    assert decode_compact(expected, META.key_id) == ROW


@pytest.mark.parametrize("length", [0, 1, 100, 64 * 1024])
def test_a_record_is_100_bytes_longer_than_its_payload(world: World, length: int) -> None:
    session = world.factory.get_session("p")
    record = session.encrypt_compact(bytes(length))
    assert len(record) == length + 100
    assert session.decrypt(record) == bytes(length)


def test_both_formats_use_the_same_keys(world: World) -> None:
    session = world.factory.get_session("p")
    compact, text = session.encrypt_compact(b"x"), session.encrypt(b"x")
    assert session.read(compact).key.parent_key_meta == session.read(text).key.parent_key_meta == KeyMeta(IK_ID, START)
    assert world.taken_calls() == {"load_latest": 2, "store": 2, "wrap": 1}


def test_the_json_form_is_had_without_a_key(world: World) -> None:
    record = world.factory.get_session("p").encrypt_compact(b"a value")
    cold = world.new_process().get_session("p")
    world.taken_calls()
    text = cold.to_json(record)
    assert world.taken_calls() == {}
    row = decode_row(text)
    assert (row.key.key, row.data) == (record[12:72], record[72:])
    assert row.key == DataRowKey(START, record[12:72], KeyMeta(IK_ID, START))
    assert cold.to_json(text) == text
    assert cold.decrypt(text) == b"a value"
    assert encode_compact(row) == record


@pytest.mark.parametrize("first", range(256))
def test_only_version_1_is_read(world: World, first: int) -> None:
    session = world.factory.get_session("p")
    record = bytes([first]) + session.encrypt_compact(b"a value")[1:]
    assert is_compact(record) is (first < 9)
    if first == 1:
        assert session.decrypt(record) == b"a value"
        return
    reason = f"its version byte is {first:#04x}" if first < 9 else "not a data row record"
    with pytest.raises(InvalidRecordError, match=reason):
        session.decrypt(record)


def test_every_truncation_is_refused(world: World) -> None:
    session = world.factory.get_session("p")
    record = session.encrypt_compact(b"a value")
    for length in range(len(record)):
        with pytest.raises(InvalidRecordError if length < 100 else DecryptionError):
            session.decrypt(record[:length])


@pytest.mark.parametrize("tail", [b"\0", b"x", b"\x01" * 100])
def test_what_stands_behind_a_record_is_refused(world: World, tail: bytes) -> None:
    session = world.factory.get_session("p")
    with pytest.raises(DecryptionError):
        session.decrypt(session.encrypt_compact(b"a value") + tail)


def test_no_flipped_bit_opens(world: World) -> None:
    session = world.factory.get_session("p")
    record = session.encrypt_compact(b"a value")
    for place in range(len(record)):
        for bit in range(8):
            flipped = bytearray(record)
            flipped[place] ^= 1 << bit
            with pytest.raises(AsherahError) as caught:
                session.decrypt(bytes(flipped))
            assert type(caught.value) is _expected(place, flipped)


def _expected(place: int, record: bytearray) -> type[AsherahError]:
    if place == 0:
        return InvalidRecordError
    if place < 6:
        return InvalidRecordError if int.from_bytes(record[1:6]) > records.MAX_CREATED else KeyNotFoundError
    return PartitionMismatchError if place < 12 else DecryptionError


def test_another_partitions_record_is_refused_before_any_key_is_looked_for(world: World) -> None:
    record = world.factory.get_session("q").encrypt_compact(b"x")
    cold = world.new_process().get_session("p")
    world.taken_calls()
    for work in (cold.decrypt, cold.read, cold.to_json):
        with pytest.raises(PartitionMismatchError, match="not of this partition, whose key is _IK_p_svc_prod"):
            work(record)
    assert world.taken_calls() == {}


def test_a_record_under_a_forged_fingerprint_does_not_open(world: World) -> None:
    """Whoever finds two partitions with one fingerprint, or writes to the column, still has not the other's key."""
    own, foreign = world.factory.get_session("p"), world.factory.get_session("q")
    record = foreign.encrypt_compact(b"x")
    own.encrypt_compact(b"so that there is a key of that minute")
    forged = record[:6] + own.encrypt_compact(b"y")[6:12] + record[12:]
    with pytest.raises(DecryptionError, match="sealed under another key, or tampered with"):
        own.decrypt(forged)


def test_a_time_that_no_key_can_have_is_refused() -> None:
    most = records.MAX_CREATED
    for created, fits in ((most, True), (most + 1, False), (2**40 - 1, False)):
        blob = b"\x01" + created.to_bytes(5) + encode_compact(ROW)[6:]
        if fits:
            assert decode_compact(blob, META.key_id).key.created == most
        else:
            with pytest.raises(InvalidRecordError, match="later than any can be"):
                decode_compact(blob, META.key_id)


def test_a_blob_over_the_limit_is_refused() -> None:
    blob = encode_compact(ROW) + bytes(records.MAX_PAYLOAD_LENGTH)
    with pytest.raises(InvalidRecordError, match=f"expected 100 to {100 + records.MAX_PAYLOAD_LENGTH}"):
        decode_compact(blob, META.key_id)


@pytest.mark.parametrize("value", [None, 5, [], memoryview(b"\x01" * 100), bytearray(b"\x01" * 100), "\x01" * 100, b""])
def test_what_is_no_bytes_or_empty_is_never_compact(world: World, value: Any) -> None:
    assert not is_compact(value)
    with pytest.raises(InvalidRecordError):
        world.factory.get_session("p").decrypt(value)


def test_no_error_carries_the_record(world: World) -> None:
    session = world.factory.get_session("p")
    record = session.encrypt_compact(b"S3CR3T" * 10)
    marker = b"S3CR3T" * 20
    for blob in (b"\x01" + marker, record[:72] + marker, b"\x02" + marker):
        with pytest.raises(AsherahError) as caught:
            session.decrypt(blob)
        assert "S3CR3T" not in chain_text(caught.value)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_record_or_refused(blob: bytes) -> None:
    for candidate in (blob, b"\x01" + blob):
        with pytest.raises((InvalidRecordError, PartitionMismatchError)):
            decode_compact(candidate, "_IK_nobody")


@given(
    created=st.integers(0, records.MAX_CREATED),
    key=st.binary(min_size=60, max_size=60),
    key_id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=255),
    data=st.binary(min_size=28, max_size=300),
)
def test_every_row_comes_back(created: int, key: bytes, key_id: str, data: bytes) -> None:
    row = DataRowRecord(DataRowKey(created, key, KeyMeta(key_id, created)), data)
    assert decode_compact(encode_compact(row), key_id) == row
