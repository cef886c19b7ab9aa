"""Records and their exact JSON, and everything that is not one."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_asherah.envelope import records
from django_asherah.envelope.records import (
    DataRowKey,
    DataRowRecord,
    EnvelopeKeyRecord,
    KeyMeta,
    decode_key,
    decode_row,
    encode_key,
    encode_row,
)
from django_asherah.exceptions import AsherahError, InvalidRecordError
from tests.envelope.fakes import World, chain_text

KEY_60 = bytes(range(60))
B64_60 = base64.b64encode(KEY_60).decode()
META = KeyMeta('_IK_päſ"\\ p_svc_prod', 1700000000)
ROW = DataRowRecord(DataRowKey(1700000042, KEY_60, META), bytes(28))


def row_json(**changes: Any) -> dict[str, Any]:
    """Return a row as a document, with members of ``Key`` or of the row itself replaced."""
    key = {"Created": 1, "Key": B64_60, "ParentKeyMeta": {"KeyId": "_IK_p", "Created": 2}}
    document: dict[str, Any] = {"Key": key, "Data": base64.b64encode(bytes(28)).decode()}
    for name, value in changes.items():
        (document if name == "Data" else key)[name] = value
    return document


def test_a_row_is_written_in_canonical_form_byte_for_byte() -> None:
    assert encode_row(ROW) == (
        '{"Key":{"Created":1700000042,"Key":"' + B64_60 + '","ParentKeyMeta":{"KeyId":"_IK_päſ\\"\\\\ p_svc_prod",'
        '"Created":1700000000}},"Data":"' + "A" * 37 + '="}'
    ).replace("A" * 37 + "=", base64.b64encode(bytes(28)).decode())


def test_a_system_key_is_written_without_revoked_and_without_parent() -> None:
    assert encode_key(EnvelopeKeyRecord(created=5, key=KEY_60)) == f'{{"Created":5,"Key":"{B64_60}"}}'


def test_a_revoked_intermediate_key_is_written_with_revoked_first() -> None:
    record = EnvelopeKeyRecord(revoked=True, created=5, key=KEY_60, parent_key_meta=KeyMeta("_SK_s_p", 4))
    assert encode_key(record) == (
        f'{{"Revoked":true,"Created":5,"Key":"{B64_60}","ParentKeyMeta":{{"KeyId":"_SK_s_p","Created":4}}}}'
    )


@pytest.mark.parametrize(
    ("given_", "expected"),
    [("", False), ('"Revoked":false,', False), ('"Revoked":null,', False), ('"Revoked":true,', True)],
)
def test_revoked_missing_false_and_null_mean_the_same(given_: str, expected: bool) -> None:
    record = decode_key(f'{{{given_}"Created":5,"Key":"{B64_60}"}}')
    assert record.revoked is expected
    assert ("Revoked" in encode_key(record)) is expected


def test_members_in_any_order_white_space_and_unknown_members_are_read() -> None:
    text = json.dumps(row_json(), indent=2)
    turned = json.dumps(dict(reversed([*row_json().items(), ("New", [1])])))
    assert decode_row(text) == decode_row(turned) == decode_row(turned.encode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "null",
        "[]",
        "1",
        '"text"',
        "{}",
        "plain text",
        '{"Key":{},"Data":""}',
        json.dumps(row_json(Created=1.0)),
        json.dumps(row_json(Created=True)),
        json.dumps(row_json(Created="1")),
        json.dumps(row_json(Created=-1)),
        json.dumps(row_json(Created=253402300800)),
        json.dumps(row_json(Created=10**400)),
        json.dumps(row_json(Created=float("nan"))),
        json.dumps(row_json(Created=None)),
        json.dumps(row_json(Key=None)),
        json.dumps(row_json(Key=B64_60[:-4])),
        json.dumps(row_json(Key=B64_60 + "AAAA")),
        json.dumps(row_json(Key=B64_60.replace("+", "-").replace("/", "_")[:-1] + "_")),
        json.dumps(row_json(Data=base64.b64encode(bytes(27)).decode())),
        json.dumps(row_json(Data=base64.b64encode(bytes(28)).decode().rstrip("="))),
        json.dumps(row_json(Data=" " + base64.b64encode(bytes(28)).decode())),
        json.dumps(row_json(Data="")),
        json.dumps(row_json(Data=5)),
        json.dumps(row_json(ParentKeyMeta=None)),
        json.dumps(row_json(ParentKeyMeta={"KeyId": "", "Created": 1})),
        json.dumps(row_json(ParentKeyMeta={"KeyId": "x" * 256, "Created": 1})),
        json.dumps(row_json(ParentKeyMeta={"KeyId": "x"})),
        json.dumps(row_json()) + "x",
        json.dumps(row_json()).replace("}", ",}", 1),
        '{"Key":' * 100_000,
        '{"x":' + "[" * 100_000 + "]" * 100_000 + "}",
        "\0",
        "\ud800",
        b"\xff\xfe",
        b"",
    ],
    ids=lambda text: repr(text[:40]),
)
def test_what_is_no_row_is_refused(text: str | bytes) -> None:
    with pytest.raises(InvalidRecordError, match=r"^not a data row record: ") as caught:
        decode_row(text)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("value", [None, 5, 1.5, [], {}, memoryview(b"{}"), bytearray(b"{}")])
def test_what_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRecordError, match=f"expected text, got {type(value).__name__}"):
        decode_row(value)


def test_the_longest_key_id_is_read_and_a_longer_one_is_not() -> None:
    assert decode_row(json.dumps(row_json(ParentKeyMeta={"KeyId": "é" * 255, "Created": 1})))
    with pytest.raises(InvalidRecordError, match="length <= 255"):
        decode_row(json.dumps(row_json(ParentKeyMeta={"KeyId": "é" * 256, "Created": 1})))


@pytest.mark.parametrize(("length", "fits"), [(59, False), (60, True), (16 * 1024, True), (16 * 1024 + 1, False)])
def test_bounds_of_a_wrapped_key(length: int, fits: bool) -> None:
    text = json.dumps({"Created": 1, "Key": base64.b64encode(bytes(length)).decode()})
    if fits:
        assert len(decode_key(text).key) == length
    else:
        with pytest.raises(InvalidRecordError):
            decode_key(text)


def test_the_bounds_are_those_of_the_sdks_and_of_sql() -> None:
    assert records.MAX_PAYLOAD_LENGTH == 67_108_864
    assert records.MAX_WRAPPED_KEY_LENGTH == 16_384
    assert datetime.fromtimestamp(records.MAX_CREATED, tz=UTC) == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize("kind", [str, str.encode])
@pytest.mark.parametrize(
    ("decode", "record", "limit"),
    [
        (decode_row, encode_row(ROW), 89_482_618),
        (decode_key, encode_key(EnvelopeKeyRecord(created=5, key=KEY_60)), 25_941),
    ],
)
def test_a_text_over_the_limit_is_refused_although_it_holds_a_record(
    decode: Callable[[Any], Any], record: str, limit: int, kind: Callable[[str], Any]
) -> None:
    padding = " " * (limit - len(kind(record)))
    assert decode(kind(record + padding)) == decode(record)
    with pytest.raises(InvalidRecordError, match=f": {limit + 1} characters, over the limit of {limit}$"):
        decode(kind(record + padding + " "))


def test_the_longest_row_in_its_longest_form_is_within_the_limit() -> None:
    meta = KeyMeta("🔑" * 255, records.MAX_CREATED)
    row = DataRowRecord(DataRowKey(records.MAX_CREATED, KEY_60, meta), bytes(records.MAX_PAYLOAD_LENGTH + 28))
    escaped = encode_row(row).replace("🔑", "\\ud83d\\udd11")
    assert decode_row(escaped) == row


def test_the_least_that_a_name_and_a_time_can_be() -> None:
    key = {"KeyId": "k", "Created": 0}
    assert decode_row(json.dumps(row_json(ParentKeyMeta=key, Created=0))).key.parent_key_meta == KeyMeta("k", 0)


@pytest.mark.parametrize(
    ("record", "member"),
    [(META, "created"), (ROW, "data"), (ROW.key, "key"), (EnvelopeKeyRecord(created=5, key=KEY_60), "revoked")],
)
def test_a_record_that_caches_and_threads_share_can_not_be_changed(record: Any, member: str) -> None:
    with pytest.raises(AttributeError, match="immutable"):
        setattr(record, member, None)


def test_a_subclass_of_str_is_read_as_str() -> None:
    class Text(str):
        __slots__ = ()

    assert decode_row(Text(encode_row(ROW))) == ROW


@pytest.mark.parametrize(("key_id", "shown"), [("_IK_ä 王_s_p", "_IK_ä 王_s_p"), ("_IK_a\nb_s_p", "_IK_a\\nb_s_p")])
def test_a_key_id_writes_no_lines_of_its_own_into_a_message(key_id: str, shown: str) -> None:
    assert records.printable(key_id) == shown
    assert str(KeyMeta(key_id, 5)) == f"{shown} created 5"


def test_no_error_carries_the_record() -> None:
    marker = "S3CR3T" * 6
    for text in (f'{{"Key":"{marker}"}}', f"{marker}\ud800", marker.encode() + b"\xff", f'{{"Data":"{marker}"'):
        with pytest.raises(InvalidRecordError) as caught:
            decode_row(text)
        assert marker not in chain_text(caught.value)


def test_every_truncation_is_refused(world: World) -> None:
    session = world.factory.get_session("p")
    text = session.encrypt(b"a value")
    for length in range(len(text)):
        with pytest.raises(InvalidRecordError):
            session.decrypt(text[:length])


def test_no_flipped_bit_gives_another_plaintext(world: World) -> None:
    session = world.factory.get_session("p")
    blob = session.encrypt(b"a value").encode()
    opened = 0
    for place in range(len(blob)):
        for bit in range(8):
            flipped = bytearray(blob)
            flipped[place] ^= 1 << bit
            with contextlib.suppress(AsherahError):
                assert session.decrypt(bytes(flipped)) == b"a value"
                opened += 1
    # Only the time of the data row key, which nobody relies on, and unused base64 bits may change.
    assert 0 < opened < 60


@given(st.binary(max_size=400))
def test_any_bytes_are_a_row_or_refused(blob: bytes) -> None:
    with contextlib.suppress(InvalidRecordError):
        decode_row(blob)


@given(
    created=st.integers(0, records.MAX_CREATED),
    key=st.binary(min_size=60, max_size=60),
    key_id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=255),
    data=st.binary(min_size=28, max_size=300),
)
def test_every_row_comes_back(created: int, key: bytes, key_id: str, data: bytes) -> None:
    row = DataRowRecord(DataRowKey(created, key, KeyMeta(key_id, created)), data)
    assert decode_row(encode_row(row)) == row
    assert json.loads(encode_row(row))["Data"] == base64.b64encode(data).decode()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["Key", "Data", "Created", "ParentKeyMeta", "KeyId"]), inner)
        ),
    )
)
def test_any_json_is_a_row_or_refused(document: Any) -> None:
    with contextlib.suppress(InvalidRecordError):
        decode_row(json.dumps(document))
