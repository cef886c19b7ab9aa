"""Fields and values of an author's own: what is sealed is what a plain field would store, and what is read again."""

from __future__ import annotations

import dataclasses
import enum
import math
import uuid
from collections import namedtuple
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import ip_address
from typing import Any, cast

import pytest
from django.db import connection, models
from django.test.utils import isolate_apps
from django.utils.functional import lazystr
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy

from django_asherah import engine, fields
from django_asherah.exceptions import EncryptionError
from django_asherah.fields import EncryptedFieldMixin
from tests.envelope.fakes import chain_text

pytestmark = pytest.mark.django_db


class Colour(str, enum.Enum):  # noqa: UP042 - its str() is not its value
    RED = "red"


class NewColour(enum.StrEnum):
    RED = "red"


class Choice(models.TextChoices):
    RED = "red", "Red"


class OtherText(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "secret"


class Level(models.IntegerChoices):
    LOW = 1, "Low"


class Number(int, enum.Enum):
    ONE = 1


class OtherInteger(int):
    def __str__(self) -> str:
        return "secret"

    __repr__ = __str__


class Half(float, enum.Enum):
    HALF = 0.5


class Price(Decimal, enum.Enum):
    LOW = "0.50"


class OtherDecimal(Decimal):
    def __str__(self, *args: Any) -> str:
        return "secret"


class OtherUUID(uuid.UUID):
    def __str__(self) -> str:
        return "secret"


class Day(date, enum.Enum):
    NEW_YEAR = (2026, 1, 1)


class OtherDate(date):
    def isoformat(self) -> str:
        return "secret"

    __str__ = isoformat


class OtherMoment(datetime):
    def __str__(self) -> str:
        return "secret"


class OtherDuration(timedelta):
    def __str__(self) -> str:
        return "secret"


class Plain(enum.Enum):
    RED = "secret"


@dataclasses.dataclass
class Point:
    name: str = "secret"


Pair = namedtuple("Pair", "first second")


class EncryptedSlug(EncryptedFieldMixin, models.SlugField):  # type: ignore[type-arg]
    pass


class EncryptedWhatever(EncryptedFieldMixin, models.Field):  # type: ignore[type-arg]
    pass


class EncryptedSmall(EncryptedFieldMixin, models.PositiveSmallIntegerField):  # type: ignore[type-arg]
    pass


class EncryptedRatio(EncryptedFieldMixin, models.FloatField):  # type: ignore[type-arg]
    pass


class EncryptedLength(EncryptedFieldMixin, models.DurationField):  # type: ignore[type-arg]
    pass


class EncryptedBytes(EncryptedFieldMixin, models.BinaryField):  # type: ignore[type-arg]
    pass


class EncryptedTree(EncryptedFieldMixin, models.JSONField):  # type: ignore[type-arg,misc]
    pass


class TagsField(models.TextField):  # type: ignore[type-arg]
    """A list, as other packages store one."""

    def get_prep_value(self, value: Any) -> Any:
        return ",".join(value)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return value.split(",")


class EncryptedTags(EncryptedFieldMixin, TagsField):  # type: ignore[type-arg]
    pass


class LevelField(models.IntegerField):  # type: ignore[type-arg]
    """An enumeration, as other packages store one: the column yields a number."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return Level(value)

    def to_python(self, value: Any) -> Any:
        return Level(int(value))


class EncryptedLevel(EncryptedFieldMixin, LevelField):  # type: ignore[type-arg]
    pass


class UnreadTagsField(TagsField):
    from_db_value = None  # type: ignore[assignment]


class EncryptedUnreadTags(EncryptedFieldMixin, UnreadTagsField):  # type: ignore[type-arg]
    pass


class TagsOfOurs(fields.EncryptedTextField):  # type: ignore[type-arg]
    def get_prep_value(self, value: Any) -> Any:
        return ",".join(value)

    def to_python(self, value: Any) -> Any:
        return value if isinstance(value, list) else value.split(",")


class TagsThatLoad(fields.EncryptedTextField):  # type: ignore[type-arg]
    def load(self, payload: bytes) -> Any:  # type: ignore[override]
        return payload.decode().split(",")


class Halves(EncryptedFieldMixin, models.Field):  # type: ignore[type-arg]
    """It forgot to read what it writes."""

    def dump(self, value: Any) -> bytes:
        return bytes([0xFF, value])


class Rounded(EncryptedFieldMixin, models.Field):  # type: ignore[type-arg]
    def dump(self, value: Any) -> bytes:
        return b"%d" % round(value)

    def load(self, payload: bytes) -> int:
        return int(payload)


DECIMAL = {"max_digits": 9, "decimal_places": 2}
LIKE_PLAIN: list[tuple[type[Any], dict[str, Any], Any, bytes, Any]] = [
    *(
        (each, {}, value, b"red", "red")
        for each in (EncryptedSlug, EncryptedWhatever, fields.EncryptedCharField, fields.EncryptedTextField)
        for value in (
            "red", Colour.RED, NewColour.RED, Choice.RED, lazystr("red"), gettext_lazy("red"), mark_safe("red"),
            OtherText("red"),
        )
    ),
    *(
        (each, {}, value, b"%d" % plain, plain)
        for each in (EncryptedSmall, fields.EncryptedIntegerField, fields.EncryptedBigIntegerField)
        for value, plain in (
            (Level.LOW, 1), (Number.ONE, 1), (True, 1), (OtherInteger(7), 7), ("7", 7), (7.9, 7), (Half.HALF, 0),
        )
    ),
    *(
        (each, {}, value, repr(plain).encode(), plain)
        for each in (EncryptedRatio, fields.EncryptedFloatField)
        for value, plain in ((Half.HALF, 0.5), (Level.LOW, 1.0), (Decimal("0.5"), 0.5), (float("inf"), float("inf")))
    ),
    (fields.EncryptedDecimalField, DECIMAL, Price.LOW, b"0.50", Decimal("0.50")),
    (fields.EncryptedDecimalField, DECIMAL, OtherDecimal("0.50"), b"0.50", Decimal("0.50")),
    (fields.EncryptedDecimalField, DECIMAL, Level.LOW, b"1", Decimal(1)),
    (fields.EncryptedBooleanField, {}, Level.LOW, b"true", True),
    (fields.EncryptedUUIDField, {}, OtherUUID(int=5), str(uuid.UUID(int=5)).encode(), uuid.UUID(int=5)),
    (fields.EncryptedUUIDField, {}, Number.ONE, str(uuid.UUID(int=1)).encode(), uuid.UUID(int=1)),
    (fields.EncryptedDateField, {}, Day.NEW_YEAR, b"2026-01-01", date(2026, 1, 1)),
    (fields.EncryptedDateField, {}, OtherDate(2026, 1, 1), b"2026-01-01", date(2026, 1, 1)),
    (
        fields.EncryptedDateTimeField, {}, OtherMoment(2026, 1, 1, tzinfo=UTC),
        b"2026-01-01T00:00:00+00:00", datetime(2026, 1, 1, tzinfo=UTC),
    ),
    (fields.EncryptedDurationField, {}, OtherDuration(1), b"P1DT00H00M00S", timedelta(1)),
    (EncryptedLength, {}, OtherDuration(1), b"1 day, 0:00:00", timedelta(1)),
    (fields.EncryptedGenericIPAddressField, {}, ip_address("::1"), b"::1", "::1"),
    (EncryptedTags, {}, ["a", "b"], b"a,b", ["a", "b"]),
    (EncryptedLevel, {}, Level.LOW, b"1", Level.LOW),
    (Rounded, {}, 1.6, b"2", 2),
    (fields.EncryptedJSONField, {}, {"a": (1,)}, b'{"a":[1]}', {"a": [1]}),
]  # fmt: skip

REFUSED: list[tuple[type[Any], Any]] = [
    *(
        (EncryptedWhatever, value)
        for value in (["secret"], ("secret",), Pair("secret", 1), Point(), Plain.RED, b"secret", 5, {"secret": 1},
                      date(2026, 1, 1), Decimal(5), uuid.UUID(int=5), time(5))
    ),
    (EncryptedTags, ("secret", "b")),
    (EncryptedTags, []),
    (EncryptedUnreadTags, ["secret"]),
    (TagsOfOurs, ["secret"]),
    (TagsThatLoad, ["secret"]),
    (EncryptedBytes, b"secret"),
    (EncryptedTree, {"secret": 1}),
    (EncryptedTree, "5"),
    (EncryptedLength, "secret"),
    (Halves, 5),
]  # fmt: skip


@pytest.fixture
def held() -> Callable[[Any], Any]:
    """Return a field of the given class as one of a model."""

    def hold(field: Any) -> Any:
        with isolate_apps("tests.testapp"):
            attributes = {
                "__module__": "tests.testapp.models",
                "Meta": type("Meta", (), {"app_label": "testapp"}),
                "thing": field,
            }
            return cast(Any, type("Holder", (models.Model,), attributes))._meta.get_field("thing")

    return hold


@pytest.mark.parametrize(("type_", "options", "value", "sealed", "read"), LIKE_PLAIN)
def test_what_a_plain_field_would_store_is_sealed(
    type_: type[Any], options: dict[str, Any], value: Any, sealed: bytes, read: Any
) -> None:
    field = type_(**options)
    for _ in range(2):
        record = field.get_db_prep_save(value, connection)
        assert engine.get_session().decrypt(record) == sealed
        again = field.from_db_value(record, None, connection)
        assert (type(again), again) == (type(read), read)


@pytest.mark.parametrize(("type_", "value"), REFUSED)
def test_what_would_be_read_as_something_else_is_refused(type_: type[Any], value: Any, held: Any) -> None:
    field = held(type_())
    for _ in range(2):
        with pytest.raises(EncryptionError) as caught:
            field.get_db_prep_save(value, connection)
        assert str(caught.value).startswith(
            f"testapp.Holder.thing: what it writes of the {type(value).__name__} that was given is not what it reads ("
        )
        assert str(caught.value).endswith(f"give the field a dump() and a load() for such values ({type_.__name__})")
        assert "secret" not in chain_text(caught.value)
        assert caught.value.__context__ is None


def test_a_number_that_is_none_comes_back() -> None:
    field = EncryptedRatio()
    for _ in range(2):
        read = field.from_db_value(field.get_db_prep_save(float("nan"), connection), None, connection)
        assert math.isnan(read)


def test_a_type_that_was_seen_is_not_read_again() -> None:
    class Watched(EncryptedSlug):
        reads = 0

        def to_python(self, value: Any) -> Any:
            Watched.reads += 1
            return super().to_python(value)

        def get_prep_value(self, value: Any) -> Any:
            return value

    field = Watched()
    for value, reads in (("a", 1), ("b", 1), (mark_safe("c"), 2), (mark_safe("d"), 2), (Colour.RED, 3), ("e", 3)):
        field.get_db_prep_save(value, connection)
        assert Watched.reads == reads


def test_a_type_tells_nothing_where_a_plain_column_holds_something_else() -> None:
    field = EncryptedTree()
    assert field.from_db_value(field.get_db_prep_save("five", connection), None, connection) == "five"
    with pytest.raises(EncryptionError, match="is not what it reads"):
        field.get_db_prep_save("5", connection)


def test_what_a_subclass_of_ours_converts_it_still_does() -> None:
    class Ours(fields.EncryptedDateTimeField):  # type: ignore[type-arg]
        pass

    class Documents(fields.EncryptedJSONField):  # type: ignore[type-arg]
        pass

    with pytest.warns(RuntimeWarning, match="naive"):
        record = Ours().get_db_prep_save(datetime(2026, 1, 1), connection)
    assert Ours().from_db_value(record, None, connection).tzinfo is UTC
    record = Documents().get_db_prep_save({1: (2,)}, connection)
    assert Documents().from_db_value(record, None, connection) == {"1": [2]}
