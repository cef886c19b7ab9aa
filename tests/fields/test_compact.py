"""``record_format="compact"``: the same field over a binary column, and every format read wherever it stands."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import FieldError
from django.db import connection, models
from django.db.models import Case, F, Value, When
from django.db.models.functions import Cast, Coalesce
from django.test.utils import CaptureQueriesContext

from django_asherah import engine, lifecycle
from django_asherah.envelope.compact import is_compact
from django_asherah.exceptions import AsherahError, DecryptionError, InvalidRecordError, PartitionMismatchError
from django_asherah.fields import EncryptedBinaryField, EncryptedJSONField, EncryptedTextField
from tests.databases import VENDOR
from tests.envelope.fakes import chain_text
from tests.fields.helpers import raw, set_raw
from tests.testapp.models import Compact, Note

pytestmark = pytest.mark.django_db

BINARY = {"sqlite": "BLOB", "postgresql": "bytea", "mysql": "longblob"}[VENDOR]
TEXT = {"sqlite": "text", "postgresql": "text", "mysql": "longtext"}[VENDOR]
NAMES = ("body", "apart", "json_bytes", "plain")


def is_own(name: str, value: Any) -> bool:
    """Tell whether a column holds what a field of its format writes."""
    if name == "plain":
        return isinstance(value, str) and value.startswith('{"Key":{')
    if name == "json_bytes":
        return isinstance(value, bytes) and value.startswith(b'{"Key":{')
    return is_compact(value)


@pytest.mark.parametrize(("name", "kind"), [("body", BINARY), ("doc", BINARY), ("json_bytes", BINARY), ("plain", TEXT)])
def test_the_kind_of_column(name: str, kind: str) -> None:
    field: Any = Compact._meta.get_field(name)
    assert field.db_type(connection) == kind
    with connection.cursor() as cursor:
        columns = connection.introspection.get_table_description(cursor, Compact._meta.db_table)
    (column,) = [column for column in columns if column.name == name]
    wanted = "BinaryField" if kind == BINARY and VENDOR != "mysql" else "TextField"
    assert connection.introspection.get_field_type(column.type_code, column) == wanted


def test_100_bytes_take_200() -> None:
    row = Compact.objects.create(body="x" * 100)
    assert len(raw(row, "body")) == 200


def test_whatever_writes_the_column_holds_a_record_of_its_format() -> None:
    def check(count: int, text: str) -> None:
        rows = list(Compact.objects.order_by("pk"))
        assert len(rows) == count
        for row in rows:
            for name in NAMES:
                assert is_own(name, raw(row, name))
                assert getattr(row, name) == text
            assert is_compact(raw(row, "doc"))
            assert row.doc == [text]

    def values(text: str) -> dict[str, Any]:
        return {**dict.fromkeys(NAMES, text), "doc": [text]}

    row = Compact.objects.create(**values("create"))
    check(1, "create")
    for name, value in values("save").items():
        setattr(row, name, value)
    row.save()
    check(1, "save")
    Compact.objects.update(**values("update"))
    check(1, "update")
    Compact.objects.all().delete()
    rows = Compact.objects.bulk_create([Compact(**values("bulk_create")) for _ in range(20)])
    check(20, "bulk_create")
    for row in Compact.objects.all():
        for name, value in values("bulk_update").items():
            setattr(row, name, value)
        rows.append(row)
    Compact.objects.bulk_update(rows[20:], list(values("")))
    check(20, "bulk_update")


def test_nothing_is_null_and_empty_is_a_record() -> None:
    row = Compact.objects.create(body=None, apart="")
    assert raw(row, "body") is None
    assert is_compact(raw(row, "apart"))
    assert Compact.objects.filter(body=None, apart__isnull=False).get().apart == ""


def test_every_byte_can_stand_in_a_record() -> None:
    """A connection's character set must leave the bytes alone."""
    rows = Compact.objects.bulk_create([Compact(body="é\0" * 20) for _ in range(300)])
    assert {byte for row in Compact.objects.all() for byte in raw(row, "body")} == set(range(256))
    assert {row.body for row in Compact.objects.all()} == {"é\0" * 20}
    assert len(rows) == 300


@pytest.mark.parametrize("name", NAMES)
def test_every_format_that_the_column_can_hold_is_read(name: str) -> None:
    session = engine.get_session("left" if name == "apart" else None)
    row = Compact.objects.create(**{name: "x"})
    text, compact = session.encrypt(b"new"), session.encrypt_compact(b"new")
    stored: list[Any] = [text] if name == "plain" and VENDOR != "sqlite" else [text.encode(), compact]
    for value in stored:
        set_raw(row, name, value)
        row.refresh_from_db()
        assert getattr(row, name) == "new"


def test_another_format_is_rewritten_by_reencrypt_although_its_key_is_current() -> None:
    session = engine.get_session()
    rows = Compact.objects.bulk_create([Compact(body=str(n), json_bytes=str(n)) for n in range(3)])
    first, second, _ = Compact.objects.order_by("pk")
    set_raw(first, "body", session.encrypt(b"json").encode())
    set_raw(second, "json_bytes", session.encrypt_compact(b"compact"))
    report = lifecycle.reencrypt(["testapp.Compact.body", "testapp.Compact.json_bytes"])
    assert report.rewritten == {"testapp.Compact.body": 1, "testapp.Compact.json_bytes": 1}
    assert report.current == {"testapp.Compact.body": 2, "testapp.Compact.json_bytes": 2}
    assert is_compact(raw(first, "body"))
    assert is_own("json_bytes", raw(second, "json_bytes"))
    assert list(Compact.objects.order_by("pk").values_list("body", "json_bytes")) == [
        ("json", "0"),
        ("1", "compact"),
        ("2", "2"),
    ]
    assert len(rows) == 3
    assert lifecycle.reencrypt(["testapp.Compact"]).rewritten == {}


def test_values_move_to_the_newest_key_and_verify() -> None:
    Compact.objects.bulk_create([Compact(body=str(n), doc=n, apart=str(n)) for n in range(30)])
    before = {row.pk: raw(row, "body") for row in Compact.objects.all()}
    lifecycle.rotate()
    assert lifecycle.reencrypt(["testapp.Compact"]).rewritten == {
        "testapp.Compact.body": 30,
        "testapp.Compact.doc": 30,
        "testapp.Compact.apart": 30,
    }
    report = lifecycle.verify_data(["testapp.Compact"])
    assert (report.columns.total(), report.bad.total, len(report.keys)) == (90, 0, 2)
    for row in Compact.objects.all():
        assert raw(row, "body")[1:6] > before[row.pk][1:6]
        assert row.body == str(row.doc) == row.apart


def test_a_swap_compares_byte_for_byte() -> None:
    from django_asherah.lifecycle.columns import encrypted_columns
    from django_asherah.lifecycle.swap import Swap, swap_values

    row = Compact.objects.create(body="x")
    (column,) = encrypted_columns(["testapp.Compact.body"])
    stored = raw(row, "body")
    for other in (stored + b" ", stored + b"\0", stored[:-1], stored.swapcase()):
        assert swap_values(connection, column, [Swap(row.pk, other, b"wrong")]) == [row.pk]
    assert raw(row, "body") == stored
    assert swap_values(connection, column, [Swap(row.pk, stored, stored[::-1])]) == []
    assert raw(row, "body") == stored[::-1]


CASES: dict[str, tuple[Any, type[AsherahError]]] = {
    "nothing": (lambda blob: b"", InvalidRecordError),
    "plain text": (lambda blob: b"the very secret text", InvalidRecordError),
    "truncated": (lambda blob: blob[:-1], DecryptionError),
    "half": (lambda blob: blob[:50], InvalidRecordError),
    "another version": (lambda blob: b"\x02" + blob[1:], InvalidRecordError),
    "a flipped payload": (lambda blob: blob[:-30] + bytes([blob[-30] ^ 1]) + blob[-29:], DecryptionError),
    "a flipped key": (lambda blob: blob[:20] + bytes([blob[20] ^ 1]) + blob[21:], DecryptionError),
    "another partition": (lambda blob: engine.get_session("elsewhere").encrypt_compact(b"x"), PartitionMismatchError),
    "another partition's JSON": (
        lambda blob: engine.get_session("elsewhere").encrypt(b"x").encode(),
        PartitionMismatchError,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_error_is_precise_and_names_model_and_field(case: str) -> None:
    row = Compact.objects.create(body="the very secret text")
    change, error = CASES[case]
    bad = change(raw(row, "body"))
    set_raw(row, "body", bad)
    row = Compact.objects.get(pk=row.pk)
    with pytest.raises(error, match=rf"^testapp\.Compact\.body pk={row.pk}: ") as caught:
        _ = row.body
    assert type(caught.value) is error
    assert "secret" not in chain_text(caught.value)
    report = lifecycle.verify_data(["testapp.Compact.body"])
    assert [(value.pk, value.reason.partition(":")[0]) for value in report.bad] == [(str(row.pk), error.__name__)]
    assert lifecycle.reencrypt(["testapp.Compact.body"]).rewritten == {}
    assert raw(row, "body") == bad


def test_a_memoryview_is_read_as_bytes() -> None:
    """psycopg2 gives one."""
    field: Any = Compact._meta.get_field("body")
    stored = engine.get_session().encrypt_compact(b"x")
    assert field.from_db_value(memoryview(stored), None, connection) == "x"
    assert field.format.column.from_db_value(memoryview(stored), None, connection) == stored


def test_plaintext_where_the_field_allows_it() -> None:
    row = Compact.objects.create(body="x")
    field: Any = Compact._meta.get_field("body")
    field.allow_plaintext = True
    try:
        for value in (b"not encrypted yet", "not encrypted yét".encode()):
            set_raw(row, "body", value)
            row.refresh_from_db()
            assert row.body == value.decode()
            assert lifecycle.verify_data(["testapp.Compact.body"]).plaintext == {"testapp.Compact.body": 1}
        set_raw(row, "body", b"\x01 begins like a record")
        with pytest.raises(InvalidRecordError):
            _ = Compact.objects.get(pk=row.pk).body
        set_raw(row, "body", b"\xff is no text")
        with pytest.raises(InvalidRecordError, match="neither a record nor a value"):
            _ = Compact.objects.get(pk=row.pk).body
        set_raw(row, "body", b"not encrypted yet")
        assert lifecycle.reencrypt(["testapp.Compact.body"]).rewritten == {"testapp.Compact.body": 1}
    finally:
        field.allow_plaintext = False
    row.refresh_from_db()
    assert row.body == "not encrypted yet"
    assert is_compact(raw(row, "body"))


def test_expressions_that_yield_records_of_the_same_format() -> None:
    own = EncryptedTextField(record_format="compact")
    row = Compact.objects.create(body="one")
    Compact.objects.update(body=Value("two", output_field=own))
    Compact.objects.update(body=Coalesce("body", Value("never", output_field=own)))
    Compact.objects.update(body=Case(When(pk=row.pk, then=F("body")), default=Value("never", output_field=own)))
    Compact.objects.update(body=Cast(F("body"), output_field=own))
    row.refresh_from_db()
    assert row.body == "two"
    assert is_compact(raw(row, "body"))


@pytest.mark.parametrize("name", ["plain", "json_bytes", "apart", "doc"])
def test_a_column_of_another_format_partition_or_type_is_no_value_of_this_one(name: str) -> None:
    with pytest.raises(FieldError, match=r"testapp\.Compact\.body is encrypted"):
        Compact.objects.update(body=F(name))


def test_deconstruct_recreates_the_field() -> None:
    field = EncryptedJSONField(record_format="compact", partition="p")
    field.name = "doc"
    _, _, args, kwargs = field.deconstruct()
    assert kwargs == {"record_format": "compact", "partition": "p"}
    assert EncryptedJSONField(*args, **kwargs).format.name == "compact"
    assert field.clone().db_type(connection) == BINARY
    assert "record_format" not in EncryptedTextField(record_format="json").deconstruct()[3]


def test_an_unknown_format_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="'binary' is none of json, compact, json-binary"):
        EncryptedTextField(record_format="binary")


def test_it_has_nothing_to_complain_of() -> None:
    assert [message for message in Compact.check() if not isinstance(message.obj, models.JSONField)] == []


@pytest.mark.parametrize("model", [Compact, Note])
def test_many_rows_are_inserted_with_a_placeholder_for_each_value(model: Any) -> None:
    """As arrays, records would take twice as long on PostgreSQL: each of their quotation marks is escaped once more."""
    model.objects.create(body="warm")
    with CaptureQueriesContext(connection) as sent:
        model.objects.bulk_create([model(body="x"), model(body="y")])
    (statement,) = [query["sql"] for query in sent if query["sql"].startswith("INSERT")]
    assert "UNNEST" not in statement


def test_a_column_is_added_with_its_default_in_every_row() -> None:
    """The schema editor writes the default into the rows that are there."""

    class Added(EncryptedTextField):
        pass

    Compact.objects.create(body="x")
    field = Added(record_format="compact", blank=True, default="")
    field.set_attributes_from_name("added")
    field.model = Compact
    assert connection.schema_editor().effective_default(field)[:1] == b"\x01"
    plain: Any = Added(record_format="compact", blank=True)
    plain.set_attributes_from_name("added")
    plain.model = Compact
    assert plain.value_of(connection.schema_editor().effective_default(plain)) == ""


def test_a_column_of_bytes_that_may_be_blank_is_added_with_no_bytes_in_every_row() -> None:
    field: Any = EncryptedBinaryField(record_format="compact", blank=True)
    field.set_attributes_from_name("added")
    field.model = Compact
    assert field.value_of(connection.schema_editor().effective_default(field)) == b""
