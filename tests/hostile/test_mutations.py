"""Records that somebody has changed: an error of our tree, or exactly what was sealed. Never another plaintext."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.utils.safestring import SafeString
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_asherah.envelope.records import KeyMeta, decode_key, decode_row
from django_asherah.exceptions import (
    AsherahError,
    DecryptionError,
    InvalidRecordError,
    KMSError,
    PartitionMismatchError,
)
from django_asherah.fields import EncryptedJSONField, EncryptedTextField
from fuzz import world
from fuzz.targets import as_text

pytestmark = pytest.mark.usefixtures("vectors_keys")

TEXT, PAYLOAD = next((text, payload) for text, payload in world.records().items() if payload == b"\0")
DOCUMENT = next(text for text, payload in world.records().items() if payload == b'{"a":[1,null,true]}')
COMPACT = next(blob for blob, payload in world.compact_records().items() if payload == PAYLOAD)
KEY_ROW = next(row for row in world.VECTORS["key_rows"] if row["id"] == world.KEY_ID)

SESSION = world.make_factory().get_session(world.PARTITION)


@dataclass(frozen=True)
class Form:
    """Something that is stored, and what opening it gives."""

    stored: bytes
    open: Callable[[bytes], Any]
    value: Any
    harmless: int
    """How many flipped bits may go unseen: unused base64 bits, and members that nothing relies on."""


def open_under_key_row(row: bytes) -> bytes:
    """Open a good record when ``row`` is what stands in the row of its key."""
    metastore = world.make_metastore()
    metastore.records[KeyMeta(world.KEY_ID, KEY_ROW["created"])] = decode_key(row)
    return world.make_factory(metastore).get_session(world.PARTITION).decrypt(TEXT)


FORMS = {
    "a record": Form(TEXT.encode(), SESSION.decrypt, PAYLOAD, 48),
    "a record as text": Form(TEXT.encode(), lambda blob: SESSION.decrypt(as_text(blob)), PAYLOAD, 48),
    "a text field": Form(
        TEXT.encode(), lambda blob: EncryptedTextField().from_db_value(as_text(blob), None, None), "\0", 48
    ),
    "a JSON field": Form(
        DOCUMENT.encode(),
        lambda blob: EncryptedJSONField().from_db_value(as_text(blob), None, None),
        {"a": [1, None, True]},
        48,
    ),
    "a compact record": Form(COMPACT, SESSION.decrypt, PAYLOAD, 0),
    "a field of compact records": Form(
        COMPACT, lambda blob: EncryptedTextField(record_format="compact").from_db_value(blob, None, None), "\0", 0
    ),
    "a key's row": Form(KEY_ROW["key_record"].encode(), open_under_key_row, PAYLOAD, 0),
    "a wrapped system key": Form(
        world.wrapped_key(), lambda blob: bytes(world.make_aws().decrypt_key(blob)), world.SYSTEM_KEY, 2000
    ),
}


def outcome(form: Form, blob: bytes) -> bool:
    """Tell whether ``blob`` opens; anything but the right value or our own error fails the test."""
    try:
        value = form.open(blob)
    except AsherahError:
        return False
    assert value == form.value
    assert type(value) is type(form.value)
    return True


@pytest.mark.parametrize("name", FORMS)
def test_no_flipped_bit_gives_another_value(name: str) -> None:
    form = FORMS[name]
    assert outcome(form, form.stored)
    unseen = 0
    for place in range(len(form.stored)):
        for bit in range(8):
            changed = bytearray(form.stored)
            changed[place] ^= 1 << bit
            unseen += outcome(form, bytes(changed))
    assert unseen <= form.harmless


@pytest.mark.parametrize("name", FORMS)
def test_no_prefix_and_nothing_longer_opens(name: str) -> None:
    form = FORMS[name]
    assert [n for n in range(len(form.stored)) if outcome(form, form.stored[:n])] == []
    assert not outcome(form, form.stored + b"x")
    assert not outcome(form, b"x" + form.stored)
    assert not outcome(form, form.stored + form.stored)


@pytest.mark.parametrize("name", FORMS)
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_put_in_open(name: str, data: st.DataObject) -> None:
    form = FORMS[name]
    start = data.draw(st.integers(0, len(form.stored)))
    end = data.draw(st.integers(start, len(form.stored)))
    outcome(form, form.stored[:start] + data.draw(st.binary(max_size=100)) + form.stored[end:])


class Members(list[tuple[str, Any]]):
    """A JSON object in which a name may stand twice."""


def members(document: Any) -> Any:
    """Return parsed JSON with its objects as :class:`Members`."""
    if isinstance(document, dict):
        return Members((name, members(value)) for name, value in document.items())
    return document


def write(document: Any) -> str:
    if isinstance(document, Members):
        return "{" + ",".join(f"{json.dumps(name)}:{write(value)}" for name, value in document) + "}"
    if isinstance(document, list):
        return "[" + ",".join(map(write, document)) + "]"
    return document if isinstance(document, Raw) else json.dumps(document, ensure_ascii=False)


class Raw(str):
    """JSON, or what is meant to be taken for it."""


HOSTILE = st.one_of(
    st.sampled_from(
        [
            *(None, True, False, "", "\0", "\ud800", "x" * 300, [], Members(), -1, 0, 1.5, 1e308),
            *(Raw("NaN"), Raw("-Infinity"), Raw("1e999"), Raw("9" * 5000), Raw("-0"), Raw("01"), Raw("0x1")),
            *(Raw("[" * 2000), Raw("[" * 2000 + "]" * 2000), Raw('{"Key":' * 2000), Raw('"\\ud800"'), Raw('"\\x00"')),
            *(world.KEY_ID, "_SK_svc_prod", KEY_ROW["created"], KEY_ROW["created"] + 1, 2**63, 2**64, 10**400),
            *(base64.b64encode(bytes(n)).decode() for n in (0, 12, 27, 28, 59, 60, 61)),
            *(Raw(json.dumps(json.loads(text)["Data"])) for text in world.records()),
            *(Raw(json.dumps(json.loads(text)["Key"])) for text in world.records()),
        ]
    ),
    st.text(max_size=20),
    st.integers(),
)
NAMES = st.sampled_from(["Key", "Data", "Created", "ParentKeyMeta", "KeyId", "Revoked", "kmsKeks", "arn", "region", ""])


def objects(document: Any) -> list[Members]:
    found = [document] if isinstance(document, Members) else []
    for value in [value for _, value in document] if isinstance(document, Members) else document:
        if isinstance(value, list):
            found += objects(value)
    return found


def change(document: Any, data: st.DataObject) -> None:
    """Replace, drop, repeat, rename, swap or add one member anywhere."""
    place = data.draw(st.sampled_from([item for item in objects(document) if item] or [document]))
    index = data.draw(st.integers(0, len(place) - 1))
    name, value = place[index]
    match data.draw(st.sampled_from(["replace", "drop", "repeat", "rename", "add", "swap"])):
        case "replace":
            place[index] = (name, data.draw(HOSTILE))
        case "drop":
            del place[index]
        case "repeat":
            place.insert(data.draw(st.integers(0, len(place))), (name, data.draw(st.just(value) | HOSTILE)))
        case "rename":
            place[index] = (data.draw(NAMES), value)
        case "add":
            place.insert(data.draw(st.integers(0, len(place))), (data.draw(NAMES), data.draw(HOSTILE)))
        case "swap":
            place.reverse()


@pytest.mark.parametrize("name", [name for name in FORMS if FORMS[name].stored != COMPACT])
@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_changed_document_opens_as_something_else(name: str, data: st.DataObject) -> None:
    form = FORMS[name]
    document = members(json.loads(form.stored))
    if name == "a wrapped system key":
        document = Members((key, [members(e) for e in v] if isinstance(v, list) else v) for key, v in document)
    for _ in range(data.draw(st.integers(1, 4))):
        if document:
            change(document, data)
    outcome(form, write(document).encode("utf-8", "surrogatepass"))


BOMBS = {
    "digits": '{"Key":{"Created":' + "9" * 1_000_000 + "}}",
    "digits nobody reads": TEXT[:-1] + ',"x":' + "9" * 1_000_000 + "}",
    "a deep list": TEXT[:-1] + ',"x":' + "[" * 100_000 + "]" * 100_000 + "}",
    "deep objects": '{"Key":' * 100_000,
    "many members": TEXT[:-1] + ',"x":1' * 200_000 + "}",
    "many lists": TEXT[:-1] + ',"x":[' + "[]," * 300_000 + "1]}",
    "a long name": '{"' + "x" * 1_000_000 + '":1}',
    "a long key id": TEXT.replace(world.KEY_ID, "x" * 1_000_000),
    "escapes": TEXT.replace(world.KEY_ID, "\\u00e9" * 100_000),
    "white space": TEXT.replace(":", ":" + " " * 1_000_000, 1),
    "NaN": TEXT[:-1] + ',"x":NaN}',
    "an infinity": TEXT[:-1] + ',"x":1e99999}',
    "a lone surrogate": TEXT[:-1] + ',"x":"\ud800"}',
    "an escaped lone surrogate": TEXT.replace(world.KEY_ID, "\\ud800"),
    "NUL": TEXT + "\0",
    "an escaped NUL in the key id": TEXT.replace(world.KEY_ID, world.KEY_ID + "\\u0000"),
    "a byte order mark": "\ufeff" + TEXT,
    "UTF-16": TEXT.encode("utf-16").decode("latin-1"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_or_without_effect(name: str) -> None:
    form = FORMS["a record as text"]
    with contextlib.suppress(DecryptionError):
        assert SESSION.decrypt(BOMBS[name]) == PAYLOAD
    outcome(form, BOMBS[name].encode("utf-8", "surrogatepass"))


class TestDuplicateMembers:
    """The last one counts, as in Go. The Rust SDK refuses such a record; no SDK writes one.

    Either way nothing is gained by it: what opens is what the key that is named sealed.
    """

    OTHER = SESSION.encrypt(b"other")

    def test_the_last_one_counts(self) -> None:
        other = json.loads(self.OTHER)
        assert SESSION.decrypt(f'{{"Data":"{other["Data"]}",{TEXT[1:]}') == PAYLOAD
        assert SESSION.decrypt(f'{{"Key":{json.dumps(other["Key"])},{TEXT[1:]}') == PAYLOAD
        both = f'"Key":{json.dumps(other["Key"])},"Data":"{other["Data"]}"'
        assert SESSION.decrypt(f"{TEXT[:-1]},{both}}}") == b"other"

    def test_two_halves_of_two_records_do_not_open(self) -> None:
        other = json.loads(self.OTHER)
        for member in (f'"Data":"{other["Data"]}"', f'"Key":{json.dumps(other["Key"])}', '"D\\u0061ta":""'):
            with pytest.raises(DecryptionError):
                SESSION.decrypt(f"{TEXT[:-1]},{member}}}")

    def test_a_second_key_is_not_merged_into_the_first(self) -> None:
        with pytest.raises(InvalidRecordError, match="missing required field `Key`"):
            SESSION.decrypt(TEXT[:-1] + ',"Key":{"Created":5}}')

    def test_a_second_key_id_is_the_one_that_is_checked(self) -> None:
        mine, others = f'"KeyId":"{world.KEY_ID}"', '"KeyId":"_IK_tenant-7_svc_prod"'
        assert SESSION.decrypt(TEXT.replace(mine, f"{others},{mine}")) == PAYLOAD
        with pytest.raises(PartitionMismatchError):
            SESSION.decrypt(TEXT.replace(mine, f"{mine},{others}"))


def test_a_subclass_of_str_is_read_as_what_it_says() -> None:
    assert SESSION.decrypt(SafeString(TEXT)) == PAYLOAD
    with pytest.raises(InvalidRecordError):
        SESSION.decrypt(SafeString("plain text"))


@pytest.mark.parametrize("id", ["_IK_x\nERROR root: all is well", "_IK_\x1b[2J", "_IK_\u2028", "_IK_\u202eevil"])
def test_a_record_writes_no_lines_of_its_own_into_a_log(id: str) -> None:
    text = TEXT.replace(world.KEY_ID, json.dumps(id)[1:-1])
    assert decode_row(text).key.parent_key_meta.key_id == id
    with pytest.raises(PartitionMismatchError) as caught:
        SESSION.decrypt(text)
    assert str(caught.value).isprintable()
    assert str(KeyMeta(id, 5)).isprintable()
    assert str(KeyMeta("_IK_päſ \U0001f510_s_p", 5)) == "_IK_päſ \U0001f510_s_p created 5"


def test_a_wrapped_key_of_a_hundred_regions_asks_only_those_configured() -> None:
    document = json.loads(world.wrapped_key())
    real = document["kmsKeks"]
    stray = [{"region": f"evil-{n}", "arn": "arn:evil", "encryptedKek": "AAAA"} for n in range(98)]
    assert world.make_aws().decrypt_key(json.dumps({**document, "kmsKeks": [*stray, *real]}).encode()) == (
        world.SYSTEM_KEY
    )
    with pytest.raises(InvalidRecordError):
        world.make_aws().decrypt_key(json.dumps({**document, "kmsKeks": [*stray, *real, *real]}).encode())
    with pytest.raises(KMSError) as caught:
        world.make_aws().decrypt_key(json.dumps({**document, "kmsKeks": stray}).encode())
    assert set(caught.value.failures) == set(world.REGIONS)
