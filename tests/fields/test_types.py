"""Every field type: values come back exactly, whatever wrote or read them, and wrong ones are never stored or shown."""

from __future__ import annotations

import math
import struct
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django import forms
from django.core import serializers
from django.core.exceptions import FieldError, ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import NotSupportedError, connection, models, transaction
from django.db.models import Avg, Case, Count, F, Max, OuterRef, Subquery, Sum, Value, When
from django.db.models.functions import Coalesce, ExtractYear, TruncDay
from django.forms.models import modelform_factory
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_asherah import engine, fields
from django_asherah.exceptions import DecryptionError, EncryptionError, InvalidRecordError
from tests.envelope.fakes import chain_text
from tests.fields.helpers import opened, raw, set_raw
from tests.testapp.models import Note, Stamped, Typed

pytestmark = pytest.mark.django_db

ZONE = timezone(timedelta(hours=-7, minutes=-30))

# For each type: values with the exact bytes that are sealed. What is sealed is stored for good, so it may never change.
VALUES: dict[str, list[tuple[Any, bytes]]] = {
    "char": [("", b""), ("0", b"0"), ("Zoë 王🔑\0", "Zoë 王🔑\0".encode()), ("x" * 100_000, b"x" * 100_000)],
    "email": [("a@example.org", b"a@example.org"), ("", b"")],
    "url": [("https://example.org/ä?b=c#d", "https://example.org/ä?b=c#d".encode()), ("", b"")],
    "ip": [
        ("10.0.0.1", b"10.0.0.1"),
        ("::ffff:10.0.0.1", b"::ffff:10.0.0.1"),
        ("2001:db8::1", b"2001:db8::1"),
        ("::", b"::"),
    ],
    "integer": [(n, str(n).encode()) for n in (0, -1, 2**31, -(2**63), 2**64, 10**400, -(10**400))],
    "big": [(n, str(n).encode()) for n in (0, 1, -(2**63), 2**63 - 1, 2**200)],
    "float": [
        (0.0, b"0.0"),
        (-0.0, b"-0.0"),
        (0.1, b"0.1"),
        (5e-324, b"5e-324"),
        (1.7976931348623157e308, b"1.7976931348623157e+308"),
        (math.inf, b"inf"),
        (-math.inf, b"-inf"),
        (math.nan, b"nan"),
    ],
    "decimal": [
        (Decimal(text), text.encode())
        for text in ("0", "-0", "0.00", "1.5", "1.50", "-1.005", "1E+3", "1E-30", "123456789012345678901234567890.10")
    ],
    "boolean": [(True, b"true"), (False, b"false")],
    "date": [
        (date.min, b"0001-01-01"),
        (date.max, b"9999-12-31"),
        (date(2026, 2, 28), b"2026-02-28"),
    ],
    "moment": [
        (datetime.min.replace(tzinfo=UTC), b"0001-01-01T00:00:00+00:00"),
        (datetime.max.replace(tzinfo=UTC), b"9999-12-31T23:59:59.999999+00:00"),
        (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), b"2026-01-02T03:04:05.000006+00:00"),
        (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=ZONE), b"2026-01-02T10:34:05.000006+00:00"),
    ],
    "time": [
        (time.min, b"00:00:00"),
        (time.max, b"23:59:59.999999"),
        (time(1, 2, 3, 4), b"01:02:03.000004"),
    ],
    "duration": [
        (timedelta(), b"P0DT00H00M00S"),
        (timedelta(days=1, microseconds=5), b"P1DT00H00M00.000005S"),
        (timedelta(microseconds=-1), b"-P0DT00H00M00.000001S"),
        (timedelta(days=-3, hours=5, microseconds=999_999), b"-P2DT18H59M59.000001S"),
        (timedelta.max, b"P999999999DT23H59M59.999999S"),
        (timedelta.min, b"-P999999999DT00H00M00S"),
    ],
    "uuid": [
        (uuid.UUID(int=0), b"00000000-0000-0000-0000-000000000000"),
        (uuid.UUID(int=2**128 - 1), b"ffffffff-ffff-ffff-ffff-ffffffffffff"),
    ],
    "binary": [(b"", b""), (b"\0\xff", b"\0\xff"), (bytes(range(256)) * 1000, bytes(range(256)) * 1000)],
}
NAMES = list(VALUES)
CASES = [pytest.param(name, *case, id=f"{name}-{case[0]!r:.30}") for name, cases in VALUES.items() for case in cases]

# What can't be a value of the type; every one of them contains "secret" in its text.
WRONG: dict[str, list[Any]] = {
    "char": ["secret\ud800"],
    "email": ["secret\ud800"],
    "url": ["secret\ud800"],
    "ip": ["secret", "secret::1", b"secret"],
    "integer": ["secret", ["secret"]],
    "big": ["secret", ["secret"]],
    "float": ["secret", ["secret"]],
    "decimal": ["secret", ["secret"]],
    "boolean": ["secret", ["secret"]],
    "date": ["secret", ["secret"]],
    "moment": ["secret", ["secret"]],
    "time": ["secret", ["secret"]],
    "duration": ["secret", ["secret"]],
    "uuid": ["secret", ["secret"]],
    "binary": ["secret", ["secret"]],
}


def field_class(name: str) -> type[Any]:
    return type(Typed._meta.get_field(name))


def other(name: str) -> Any:
    """Return a value that isn't the default."""
    return VALUES[name][-1][0] if name not in ("email", "url") else VALUES[name][0][0]


def same(read: Any, value: Any) -> bool:
    if isinstance(value, float):
        return struct.pack(">d", read) == struct.pack(">d", value)
    if isinstance(value, Decimal):
        return bool(read.as_tuple() == value.as_tuple())
    return type(read) is type(value) and bool(read == value)


class TestValues:
    @pytest.mark.parametrize(("name", "value", "sealed"), CASES)
    def test_comes_back_exactly_and_is_sealed_as_documented(self, name: str, value: Any, sealed: bytes) -> None:
        row = Typed.objects.create(**{name: value})
        assert opened(row, name) == sealed
        assert same(getattr(Typed.objects.get(pk=row.pk), name), value)

    @pytest.mark.parametrize("name", NAMES)
    def test_none_is_null_and_nothing_else_is(self, name: str) -> None:
        row = Typed.objects.create()
        assert raw(row, f"{name}_or_none") is None
        row.refresh_from_db()
        assert getattr(row, f"{name}_or_none") is None
        for value, _ in VALUES[name]:
            setattr(row, f"{name}_or_none", value)
            row.save()
            assert raw(row, f"{name}_or_none") is not None
        assert Typed.objects.filter(**{f"{name}_or_none": None}).count() == 0

    @pytest.mark.parametrize("name", NAMES)
    def test_the_compact_format_holds_the_same(self, name: str) -> None:
        field = field_class(name)(record_format="compact")
        for value, sealed in VALUES[name]:
            record = field.get_db_prep_save(value, connection)
            assert engine.get_session().decrypt(record) == sealed
            assert same(field.from_db_value(memoryview(record), None, connection), value)

    @pytest.mark.parametrize("name", NAMES)
    def test_the_column_is_text(self, name: str) -> None:
        field = Typed._meta.get_field(name)
        assert field.db_type(connection) == fields.EncryptedTextField().db_type(connection)
        assert field.db_check(connection) is None
        assert field.check() == []

    def test_what_a_plain_field_converts_is_converted(self) -> None:
        row = Typed.objects.create(
            char=5, integer="7", big=True, float="1.5", decimal=0.25, boolean="1", date="2026-02-28",
            moment="2026-01-02T03:04:05Z", time="01:02:03.5", uuid=uuid.UUID(int=5).hex, binary=memoryview(b"abc")[::2],
            ip="2001:0DB8:0::0001",
        )  # fmt: skip
        row.refresh_from_db()
        assert (row.char, row.integer, row.big, row.float) == ("5", 7, 1, 1.5)
        assert (row.decimal, row.boolean, row.date) == (Decimal("0.25"), True, date(2026, 2, 28))
        assert (row.moment, row.time) == (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), time(1, 2, 3, 500_000))
        assert (row.uuid, row.binary, row.ip) == (uuid.UUID(int=5), b"ac", "2001:db8::1")

    def test_an_empty_address_is_null_as_with_a_plain_field(self) -> None:
        row = Typed.objects.create(ip_or_none="")
        assert raw(row, "ip_or_none") is None
        Typed.objects.update(ip_or_none="")
        assert raw(row, "ip_or_none") is None

    def test_unpack_ipv4(self) -> None:
        field = fields.EncryptedGenericIPAddressField(unpack_ipv4=True)
        record = field.get_db_prep_save("::ffff:10.0.0.1", connection)
        assert field.from_db_value(record, None, connection) == "10.0.0.1"


# What databases make of a plain column's value when the column becomes text.
MOVED: list[tuple[str, str, Any]] = [
    ("boolean", "true", True),
    ("boolean", "0", False),
    ("moment", "2026-01-02 03:04:05.000006+00", datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)),
    ("moment", "2026-01-02 03:04:05-07:30", datetime(2026, 1, 2, 10, 34, 5, tzinfo=UTC)),
    ("moment", "2026-01-02 03:04:05.000006", datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)),
    ("duration", "-93784000005", -timedelta(days=1, hours=2, minutes=3, seconds=4, microseconds=5)),
    ("duration", "1 day 02:03:04.000005", timedelta(days=1, hours=2, minutes=3, seconds=4, microseconds=5)),
    ("ip", "10.0.0.1/32", "10.0.0.1"),
    ("ip", "2001:db8::1/128", "2001:db8::1"),
    ("uuid", "0" * 31 + "5", uuid.UUID(int=5)),
    ("time", "01:02:03.5", time(1, 2, 3, 500_000)),
]


class TestPlaintext:
    @pytest.mark.parametrize(("name", "text", "value"), MOVED)
    @override_settings(TIME_ZONE="America/New_York")
    def test_a_plain_columns_text_is_read(self, name: str, text: str, value: Any) -> None:
        read = field_class(name)(allow_plaintext=True).from_db_value(text, None, connection)
        assert same(read, value)

    def test_bytes_are_not_guessed_at(self) -> None:
        with pytest.raises(InvalidRecordError, match="record_format"):
            fields.EncryptedBinaryField(allow_plaintext=True).from_db_value("\\x00", None, connection)


class TestWrongValues:
    @pytest.mark.parametrize("name", NAMES)
    def test_are_refused_before_anything_is_stored_and_never_shown(self, name: str) -> None:
        row = Typed.objects.create()
        before = raw(row, name)
        for value in WRONG[name]:
            for write in (
                lambda value=value: Typed.objects.create(**{name: value}),
                lambda value=value: Typed.objects.update(**{name: value}),
                lambda value=value: Typed.objects.bulk_create([Typed(**{name: value})]),
                lambda value=value: Typed.objects.bulk_update([Typed(pk=row.pk, **{name: value})], [name]),
                lambda value=value: Typed.objects.update(**{name: Value(value, field_class(name)())}),
            ):
                with (
                    CaptureQueriesContext(connection) as sent,
                    pytest.raises(EncryptionError) as caught,
                    transaction.atomic(),
                ):
                    write()
                assert [query for query in sent if "testapp_typed" in query["sql"]] == []
                assert "secret" not in chain_text(caught.value)
                assert caught.value.__context__ is None
        assert raw(row, name) == before
        assert Typed.objects.count() == 1

    def test_the_error_names_the_field_and_what_was_given(self) -> None:
        with pytest.raises(EncryptionError) as caught:
            Typed.objects.create(integer="secret")
        assert str(caught.value) == "testapp.Typed.integer: it can't hold the str that was given (ValueError)"

    @pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("Infinity"), Decimal("sNaN"), math.nan, math.inf])
    def test_decimals_are_finite(self, value: Any) -> None:
        with pytest.raises(EncryptionError, match=r"testapp\.Typed\.decimal: "):
            Typed.objects.create(decimal=value)

    def test_a_time_has_no_time_zone(self) -> None:
        with pytest.raises(EncryptionError, match=r"testapp\.Typed\.time: "):
            Typed.objects.create(time=time(1, tzinfo=UTC))

    def test_a_datetime_must_exist_in_utc(self) -> None:
        with pytest.raises(EncryptionError, match=r"testapp\.Typed\.moment: "):
            Typed.objects.create(moment=datetime.min.replace(tzinfo=timezone(timedelta(hours=1))))

    @pytest.mark.parametrize("name", [name for name in NAMES if name not in ("char", "email", "url", "binary")])
    @pytest.mark.parametrize("payload", [b"", b"secret", b"secret\xff", b"{}"])
    def test_another_types_record_is_an_error(self, name: str, payload: bytes) -> None:
        row = Typed.objects.create()
        set_raw(row, name, engine.get_session().encrypt(payload))
        with pytest.raises(
            DecryptionError, match=rf"testapp\.Typed\.{name} pk={row.pk}: the record opens, but holds no "
        ) as caught:
            getattr(Typed.objects.get(pk=row.pk), name)
        assert "secret" not in chain_text(caught.value)
        assert caught.value.__context__ is None


class TestPaths:
    """``django.md``'s table for every type."""

    @pytest.fixture(params=NAMES)
    def name(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def row(self, name: str) -> Typed:
        return Typed.objects.create(**{name: other(name)})

    def test_writes(self, name: str, row: Typed) -> None:
        empty, default = f"{name}_or_none", Typed._meta.get_field(name).get_default()
        Typed.objects.update(**{empty: F(name)})
        assert opened(row, empty) == VALUES[name][-1][1] if name not in ("email", "url") else VALUES[name][0][1]
        Typed.objects.update(**{empty: default})
        row.refresh_from_db()
        assert getattr(row, empty) == default
        Typed.objects.update(**{empty: Value(other(name), output_field=field_class(name)())})
        row.refresh_from_db()
        assert same(getattr(row, empty), other(name))
        Typed.objects.update(**{empty: Case(When(pk=row.pk, then=Value(None)), default=F(name))})
        assert raw(row, empty) is None
        setattr(row, name, default)
        setattr(row, empty, other(name))
        Typed.objects.bulk_update([row], [name, empty])
        row = Typed.objects.get()
        assert getattr(row, name) == default
        assert same(getattr(row, empty), other(name))
        (made,) = Typed.objects.bulk_create([Typed(**{name: other(name)})])
        assert same(getattr(Typed.objects.get(pk=made.pk), name), other(name))

    def test_reads(self, name: str, row: Typed) -> None:
        value, table = other(name), Typed._meta.db_table
        last = Typed.objects.filter(pk=OuterRef("pk")).values(name)[:1]
        for read in (
            Typed.objects.values_list(name, flat=True).get(),
            Typed.objects.values(name).get()[name],
            getattr(Typed.objects.raw(f"SELECT * FROM {table}")[0], name),
            getattr(next(Typed.objects.iterator()), name),
            Typed.objects.annotate(sub=Subquery(last)).get().sub,
            Typed.objects.annotate(copy=F(name)).get().copy,
            Typed.objects.annotate(first=Coalesce(f"{name}_or_none", name)).get().first,
        ):
            assert same(read, value)
        assert Typed.objects.aggregate(n=Count(name)) == {"n": 1}

    def test_refusals(self, name: str, row: Typed) -> None:
        queries = Typed.objects
        for lookup in ("exact", "in", "gt", "lt", "range", "contains", "year", "date", "hour", "regex"):
            with pytest.raises(FieldError, match="is encrypted"):
                queries.filter(**{f"{name}__{lookup}": other(name)})
        for refused in (
            lambda: queries.aggregate(x=Max(name)),
            lambda: queries.aggregate(x=Sum(name)),
            lambda: queries.aggregate(x=Avg(name)),
            lambda: list(queries.order_by(name)),
            lambda: list(queries.values(name).distinct()),
            lambda: list(queries.filter(**{name: F(f"{name}_or_none")})),
            lambda: queries.update(**{name: F("pk")}),
            lambda: queries.update(**{name: Value("x", output_field=models.TextField())}),
            lambda: queries.update(**{name: F("char" if name != "char" else "email")}),
        ):
            # Django refuses sums of dates on SQLite before we do.
            with pytest.raises((FieldError, NotSupportedError)):
                refused()

    @pytest.mark.parametrize("format", ["json", "xml"])
    def test_fixtures(self, name: str, row: Typed, format: str) -> None:
        if (name, format) == ("char", "xml"):
            Typed.objects.update(char="ä<&>")  # XML has no NUL, which Django's serializer says.
        if name in ("moment", "time") and format == "json":
            Typed.objects.update(**{name: {"moment": datetime(2026, 1, 1, tzinfo=UTC), "time": time(5)}[name]})
        value = getattr(Typed.objects.get(), name)
        dumped = serializers.serialize(format, Typed.objects.all())
        Typed.objects.all().delete()
        for item in serializers.deserialize(format, dumped):
            item.save()
        assert same(getattr(Typed.objects.get(), name), value)
        assert getattr(Typed.objects.get(), f"{name}_or_none") in (None, "")

    def test_deconstruct(self, name: str) -> None:
        field = Typed._meta.get_field(f"{name}_or_none")
        _, path, args, kwargs = field.deconstruct()
        assert path == f"django_asherah.fields.{type(field).__name__}"
        again = type(field)(*args, **kwargs)
        again.set_attributes_from_name(field.name)
        assert again.deconstruct() == field.deconstruct()


class TestDates:
    def test_dates_can_not_be_truncated_in_the_database(self) -> None:
        Typed.objects.create()
        for refused in (
            lambda: list(Typed.objects.dates("date", "year")),
            lambda: list(Typed.objects.datetimes("moment", "day")),
            lambda: list(Typed.objects.annotate(x=TruncDay("moment"))),
            lambda: list(Typed.objects.annotate(x=ExtractYear("date"))),
            lambda: Typed.objects.get().get_next_by_date(),
        ):
            with pytest.raises(FieldError, match="is encrypted"):
                refused()

    def test_a_naive_datetime_is_local_time_and_the_warning_does_not_say_which(self) -> None:
        with override_settings(TIME_ZONE="America/New_York"):
            with pytest.warns(RuntimeWarning, match=r"^testapp\.Typed\.moment received a naive datetime .* active\.$"):
                row = Typed.objects.create(moment=datetime(2026, 7, 1, 12))
            assert opened(row, "moment") == b"2026-07-01T16:00:00+00:00"
            with pytest.warns(RuntimeWarning, match=r"^testapp\.Typed\.moment received"):
                row = Typed.objects.create(moment=date(2026, 1, 1))
            assert opened(row, "moment") == b"2026-01-01T05:00:00+00:00"

    def test_use_tz_off_yields_naive_local_time_and_keeps_instants(self) -> None:
        instant = datetime(2026, 7, 1, 16, 0, 0, 7, tzinfo=UTC)
        aware = Typed.objects.create(moment=instant)
        with override_settings(USE_TZ=False, TIME_ZONE="America/New_York"):
            aware.refresh_from_db()
            assert aware.moment == datetime(2026, 7, 1, 12, 0, 0, 7)
            naive = Typed.objects.create(moment=aware.moment)
            assert opened(naive, "moment") == b"2026-07-01T12:00:00.000007"
            naive.refresh_from_db()
            assert naive.moment == aware.moment
            again = Typed.objects.create(moment=instant)
        with override_settings(TIME_ZONE="America/New_York"):
            for row in (aware, naive, again):
                row.refresh_from_db()
                assert row.moment == instant
                assert row.moment.tzinfo is UTC

    def test_an_aware_datetime_becomes_the_date_of_the_current_default_zone(self) -> None:
        with override_settings(TIME_ZONE="America/New_York"):
            row = Typed.objects.create(date=datetime(2026, 1, 1, 2, tzinfo=UTC))
        row.refresh_from_db()
        assert row.date == date(2025, 12, 31)

    def test_other_time_zones_come_back_in_utc(self) -> None:
        local = datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Asia/Tokyo"))
        row = Typed.objects.create(moment=local)
        row.refresh_from_db()
        assert row.moment == local
        assert row.moment.utcoffset() == timedelta()

    def test_auto_now_and_auto_now_add(self) -> None:
        row = Stamped.objects.create()
        first = Stamped.objects.get()
        assert (first.added, first.changed, first.day, first.hour) == (row.added, row.changed, row.day, row.hour)
        first.save()
        second = Stamped.objects.get()
        assert second.added == first.added == row.added
        assert second.changed > row.changed


class TestValidation:
    @pytest.mark.parametrize("name", NAMES)
    def test_form_fields_are_the_plain_fields(self, name: str) -> None:
        field = Typed._meta.get_field(name)
        plain_class = next(base for base in type(field).__mro__ if base.__module__.startswith("django.db"))
        options = {"char": {"max_length": 50}, "decimal": {"max_digits": 10, "decimal_places": 2}}.get(name, {})
        plain = plain_class(**options)
        plain.set_attributes_from_name(name)
        form_options = {"url": {"assume_scheme": "https"}}.get(name, {})
        ours, theirs = field.formfield(**form_options), plain.formfield(**form_options)
        assert type(ours) is type(theirs)
        if ours is not None:
            assert type(ours.widget) is type(theirs.widget)
            assert [type(validator) for validator in ours.validators] == [type(v) for v in theirs.validators]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("char", "x" * 51),
            ("email", "x"),
            ("url", "x"),
            ("ip", "1.2.3"),
            ("integer", 2**64),
            ("integer", -(2**64)),
            ("big", 2**63),
            ("integer", "x"),
            ("float", "x"),
            ("decimal", Decimal("1.001")),
            ("decimal", Decimal(10) ** 9),
            ("boolean", "x"),
            ("date", "2026-02-30"),
            ("moment", "x"),
            ("time", "25:00"),
            ("duration", "x"),
            ("uuid", "x"),
            ("char", None),
            ("integer", None),
        ],
    )
    def test_full_clean_complains_as_of_the_plain_field(self, name: str, value: Any) -> None:
        row = Typed(binary=b"x", char="x", email="a@example.org", url="https://example.org")
        row.full_clean()
        setattr(row, name, value)
        with pytest.raises(ValidationError) as caught:
            row.full_clean()
        assert set(caught.value.message_dict) == {name}

    def test_an_integers_range_is_that_of_the_plain_column(self) -> None:
        least, most = connection.ops.integer_field_range("IntegerField")
        Typed._meta.get_field("integer").run_validators(least)
        Typed._meta.get_field("integer").run_validators(most)
        for value in (least - 1, most + 1):
            with pytest.raises(ValidationError):
                Typed._meta.get_field("integer").run_validators(value)

    def test_a_field_of_ones_own_has_the_range_of_its_plain_column(self) -> None:
        class EncryptedPositiveField(fields.EncryptedFieldMixin, models.PositiveSmallIntegerField):  # type: ignore[type-arg]
            pass

        least, most = connection.ops.integer_field_range("PositiveSmallIntegerField")
        field = EncryptedPositiveField()
        field.run_validators(most)
        for value in (least - 1, most + 1):
            with pytest.raises(ValidationError):
                field.run_validators(value)

    @pytest.mark.parametrize("inside", [0, 5])
    def test_a_range_that_was_given_is_not_repeated(self, inside: int) -> None:
        least, most = connection.ops.integer_field_range("IntegerField")
        given = [MinValueValidator(least + inside), MaxValueValidator(lambda: most - inside)]
        field = fields.EncryptedIntegerField(validators=given)
        assert field.validators == given
        assert models.IntegerField(validators=given).validators == field.validators

    def test_a_range_that_is_wider_than_the_columns_is_narrowed(self) -> None:
        least, most = connection.ops.integer_field_range("IntegerField")
        given = [MinValueValidator(least - 1), MaxValueValidator(most + 1)]
        field = fields.EncryptedIntegerField(validators=given)
        assert field.validators == [*given, MinValueValidator(least), MaxValueValidator(most)]
        assert models.IntegerField(validators=given).validators == field.validators

    def test_max_length_is_optional_and_no_matter_of_the_column(self) -> None:
        field = fields.EncryptedCharField()
        field.set_attributes_from_name("x")
        assert field.check() == []
        field = fields.EncryptedCharField(max_length=-1)
        field.set_attributes_from_name("x")
        assert [message.id for message in field.check()] == ["fields.E121"]

    def test_a_form_saves_and_shows_values(self) -> None:
        form = modelform_factory(
            Typed, fields=[*(name for name in NAMES if name not in ("binary", "url")), "integer_or_none"]
        )
        data = {
            "char": "Zoë", "email": "a@example.org", "ip": "::1", "integer": "5",
            "big": str(2**62), "float": "1.5", "decimal": "2.50", "boolean": "on", "date": "2026-01-02",
            "moment": "2026-01-02 03:04:05", "time": "01:02", "duration": "1 02:03:04", "uuid": str(uuid.UUID(int=9)),
        }  # fmt: skip
        bound = form(data=data)
        assert bound.is_valid(), bound.errors
        row = Typed.objects.get(pk=bound.save().pk)
        assert (row.char, row.integer, row.big, row.boolean) == ("Zoë", 5, 2**62, True)
        assert same(row.decimal, Decimal("2.50"))
        assert row.duration == timedelta(days=1, hours=2, minutes=3, seconds=4)
        assert row.integer_or_none is None
        shown = form(instance=row).as_p()
        assert "Zoë" in shown
        assert "ParentKeyMeta" not in shown
        assert not form(data=data, instance=row).has_changed()
        assert not form(data=data | {"integer": "secret"}).is_valid()
        assert isinstance(form.base_fields["date"].widget, forms.DateInput)


class TestOwnFields:
    """What the mixin does for a field that overrides ``dump`` and ``load``."""

    class EncryptedPointField(fields.EncryptedFieldMixin, models.Field):  # type: ignore[type-arg]
        def dump(self, value: Any) -> bytes:
            return struct.pack(">dd", *value)

        def load(self, payload: bytes) -> Any:
            return struct.unpack(">dd", payload)

    def test_values_come_back(self) -> None:
        field = self.EncryptedPointField()
        record = field.get_db_prep_save((1.5, -0.0), connection)
        assert field.from_db_value(record, None, connection) == (1.5, -0.0)

    def test_what_dump_and_load_raise_is_not_shown(self) -> None:
        field = self.EncryptedPointField()
        with pytest.raises(
            EncryptionError, match=r"^EncryptedPointField: .* tuple that was given \(error\)$"
        ) as saving:
            field.get_db_prep_save(("secret", 1), connection)
        record = Note._meta.get_field("body").get_db_prep_save("secret", connection)
        with pytest.raises(
            DecryptionError, match=r"^EncryptedPointField: .* no value of this field \(error\)"
        ) as reading:
            field.from_db_value(record, None, connection)
        for error in (saving.value, reading.value):
            assert "secret" not in chain_text(error)
            assert error.__context__ is None
