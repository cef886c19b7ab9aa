"""A column of another library's values is proven, copied and compared, or nothing is written."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.db import OperationalError, connection, models

from django_asherah import audit, fields
from django_asherah.copying import ColumnCopy
from django_asherah.exceptions import ProofError
from tests.copying.conftest import RefusingField, SilentField, StreamField, sealed

pytestmark = pytest.mark.django_db(transaction=True, available_apps=["django_asherah", "tests.testapp"])

Make = Callable[..., Any]
LONG = [f"Zoë, number {number:05}" for number in range(40)]


@pytest.fixture
def model(make_model: Make) -> Any:
    return make_model(old=StreamField(null=True), new=fields.EncryptedTextField(null=True))


def fill(model: Any, *values: Any) -> list[int]:
    model.objects.bulk_create(model(old=value) for value in values)
    return list(model.objects.order_by("pk").values_list("pk", flat=True))


def put(model: Any, *texts: str) -> list[int]:
    """Make rows that hold these texts under another key; return their primary keys."""
    pks = [model.objects.create(old="").pk for _ in texts]
    for pk, text in zip(pks, texts, strict=True):
        with connection.cursor() as cursor:
            table = connection.ops.quote_name(model._meta.db_table)
            cursor.execute(f"UPDATE {table} SET old = %s WHERE id = %s", [sealed(text, "another"), pk])
    return pks


def copied(model: Any) -> list[Any]:
    return [row.new for row in model._base_manager.defer("old").order_by("pk")]


def unproven(model: Any, **options: Any) -> ColumnCopy:
    return ColumnCopy(model, "old", "new", risk_a_wrong_key=True, **options)


def test_with_its_key_a_library_without_authentication_is_copied(model: Any) -> None:
    pks = fill(model, *LONG, "", None)
    copy = ColumnCopy(model, "old", "new", canary={pks[0]: LONG[0], pks[7]: LONG[7]})
    assert len(copy.compare()) == 41
    assert copy.copy() == copy.compare() == {}
    assert copied(model) == [*LONG, "", None]


@pytest.mark.parametrize("size", [1, 2, 4, 20])
def test_with_a_wrong_key_values_of_any_size_are_refused(model: Any, settings: Any, size: int) -> None:
    (pk, *_) = fill(model, *[secrets.token_hex(size)[:size] for _ in range(60)])
    settings.STREAM_KEY = "wrong"
    for copy in (unproven(model), ColumnCopy(model, "old", "new", canary={pk: "not by chance"})):
        for act in (copy.prove, copy.copy, copy.compare):
            with pytest.raises(ProofError):
                act()
    assert copied(model) == [None] * 60
    model.objects.update(new="the same in both")
    with pytest.raises(ProofError, match=r"only \d+ of 60 values of a random sample are plausible, and 90% must be"):
        unproven(model).compare()


def test_300_values_are_looked_at(model: Any, settings: Any) -> None:
    fill(model, *LONG * 8)
    settings.STREAM_KEY = "wrong"
    with pytest.raises(ProofError, match=r"only \d of 300 values"):
        unproven(model).copy()


def test_rows_under_another_key_are_left_and_named(model: Any) -> None:
    fill(model, *LONG[:30])
    left = put(model, *LONG[:30])
    with pytest.raises(ProofError, match="of 60 values"):
        unproven(model).copy()
    copy = unproven(model, least=0.3)
    why = copy.copy()
    assert list(why) == left
    assert set(why.values()) <= {f"it holds {name}" for name in ("a replacement character", "a control character")}
    assert copied(model) == [*LONG[:30], *[None] * 30]
    assert copy.compare() == why


def test_the_same_garbage_in_both_columns_is_not_called_equal(model: Any, settings: Any) -> None:
    fill(model, *LONG[:30])
    (garbled,) = put(model, LONG[0])
    row = model.objects.get(pk=garbled)
    row.new = row.old
    row.save(update_fields=["new"])
    assert list(unproven(model).copy()) == []
    assert list(unproven(model).compare()) == [garbled]


def test_empty_values_are_no_part_of_the_sample(model: Any) -> None:
    fill(model, *[""] * 500)
    put(model, *LONG[:5])
    with pytest.raises(ProofError, match="only 0 of 5 values"):
        unproven(model).copy()


def test_a_column_without_values_needs_no_proof_but_a_word(model: Any) -> None:
    assert unproven(model).copy() == unproven(model).compare() == {}
    fill(model, None, "")
    assert unproven(model).copy() == unproven(model).compare() == {}
    assert copied(model) == [None, ""]


class TestAFieldThatGivesAnEmptyTextForWhatItCannotDecrypt:
    """Nothing is longer under encryption than what is longer without it."""

    EMPTY = "it is empty, and the column holds more than for the shortest of other values"

    @pytest.fixture
    def model(self, make_model: Make) -> Any:
        return make_model(old=SilentField(null=True), new=fields.EncryptedTextField(null=True))

    def test_with_its_key_empty_values_are_copied(self, model: Any) -> None:
        fill(model, "", *LONG[:3], "", None)
        assert unproven(model).copy() == unproven(model).compare() == {}
        assert copied(model) == ["", *LONG[:3], "", None]

    def test_with_a_wrong_key_nothing_is(self, model: Any, settings: Any) -> None:
        fill(model, "", *LONG[:9], "longer")
        settings.STREAM_KEY = "wrong"
        for act in (unproven(model).copy, unproven(model).compare):
            with pytest.raises(ProofError, match=f"only 0 of 10 values of a random sample .*: {self.EMPTY}"):
                act()
        assert copied(model) == [None] * 11

    def test_rows_under_another_key_are_left_and_named(self, model: Any) -> None:
        fill(model, "", *LONG[:30])
        left = put(model, f"ok {LONG[0]}")
        model.objects.update(new=None)
        copy = unproven(model)
        assert copy.copy() == copy.compare() == dict.fromkeys(left, self.EMPTY)
        assert copied(model) == ["", *LONG[:30], None]
        assert unproven(model, accept=left).copy() == {}
        assert copied(model)[-1] == ""

    def test_fields_of_ours_are_not_asked(self, make_model: Make) -> None:
        model = make_model(
            old=fields.EncryptedTextField(partition="clinic-{clinic}"),
            new=fields.EncryptedTextField(null=True),
            clinic=models.CharField(max_length=200),
        )
        model.objects.bulk_create([model(old="short", clinic="a"), *(model(old="", clinic="long" * 9) for _ in "12")])
        assert unproven(model).copy() == unproven(model).compare() == {}


class TestTheCanary:
    @pytest.fixture
    def model(self, make_model: Make) -> Any:
        model = make_model(old=RefusingField(null=True), new=fields.EncryptedTextField(null=True))
        fill(model, "first", "refused 900-12-3456", "", None)
        return model

    @pytest.mark.parametrize(
        ("number", "value", "why"),
        [
            (9, "value first", "there is no such row, or the old column is NULL in it"),
            (3, "value first", "there is no such row, or the old column is NULL in it"),
            (2, "", "its value is empty"),
            (0, "", "its value is empty"),
            (0, None, "its value is empty"),
            (
                0,
                "value second",
                "the old field gives another value than the one that you name; if yours is right, give the old library",
            ),
            (1, "900-12-3456", "the old field raises ValueError"),
        ],
    )
    def test_proves_no_key_if_the_old_field_does_not_give_it(
        self, model: Any, number: int, value: Any, why: str
    ) -> None:
        pk = model.objects.order_by("pk").first().pk + number
        for canary in ({pk: value}, {pk - number: "value first", pk: value}):
            with pytest.raises(ProofError) as raised:
                ColumnCopy(model, "old", "new", canary=canary, least=0.5).copy()
            message = str(raised.value)
            assert message.endswith("Nothing was written")
            assert f"the canary pk={pk} proves no key: {why}" in message
            assert "900-12-3456" not in message
            assert "value first" not in message
            assert raised.value.__context__ is None
        assert copied(model) == [None] * 4

    def test_proves_no_key_if_the_column_holds_it_as_it_is(self, make_model: Make) -> None:
        model = make_model(old=models.TextField(), new=fields.EncryptedTextField(null=True))
        (pk,) = fill(model, "in clear")
        with pytest.raises(ProofError, match="its value is what the column holds, which needs no key"):
            ColumnCopy(model, "old", "new", canary={pk: "in clear"}).copy()

    def test_is_in_no_text_of_the_copy(self, model: Any) -> None:
        assert "value first" not in repr(ColumnCopy(model, "old", "new", canary={1: "value first"}))


@pytest.mark.parametrize("options", [{}, {"canary": {}}, {"canary": None}])
def test_without_a_canary_it_must_be_said_that_there_is_none(model: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"old: name a canary=.* or do without it with risk_a_wrong_key=True"):
        ColumnCopy(model, "old", "new", **options)


@pytest.mark.parametrize("least", [0, -1, 1.01])
def test_the_least_share_is_one(model: Any, least: float) -> None:
    with pytest.raises(ValueError, match="must be above 0 and no more than 1"):
        unproven(model, least=least)


def test_the_new_field_is_ours(model: Any) -> None:
    with pytest.raises(TypeError, match=r"\.old is not an encrypted field of django-asherah"):
        ColumnCopy(model, "new", "old", risk_a_wrong_key=True)


def test_an_error_is_named_and_its_message_kept(make_model: Make) -> None:
    model = make_model(old=RefusingField(), new=fields.EncryptedTextField(null=True))
    pks = fill(model, "first", "refused 900-12-3456", "third")

    def choosy(value: str) -> bool:
        if value == "value third":
            raise LookupError(value)
        return True

    left = {pks[1]: "ValueError", pks[2]: "plausible() raised LookupError"}
    assert unproven(model, least=0.3, plausible=choosy).copy() == left
    with pytest.raises(ProofError) as raised:
        unproven(model, plausible=choosy).copy()
    assert "only 1 of 3" in str(raised.value)
    assert "third" not in str(raised.value)
    assert unproven(model, least=0.3, plausible=choosy, accept=[pks[2]]).copy() == {pks[1]: "ValueError"}
    assert copied(model) == ["value first", None, "value third"]


def test_what_the_new_field_can_not_hold_is_left(make_model: Make) -> None:
    class HalfField(RefusingField):
        def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
            return Decimal(value.removeprefix("decimal "))

    model = make_model(old=HalfField(), new=fields.EncryptedDecimalField(max_digits=5, decimal_places=2, null=True))
    pks = fill(model, "decimal 1.50", "decimal NaN")
    left = unproven(model).copy()
    assert list(left) == pks[1:]
    assert copied(model) == [Decimal("1.50"), None]


def test_each_row_is_sealed_for_the_partition_that_it_says_and_one_that_says_none_is_left(make_model: Make) -> None:
    model = make_model(
        old=StreamField(null=True),
        new=fields.EncryptedTextField(null=True, partition="clinic-{clinic}"),
        clinic=models.CharField(max_length=200),
    )
    model.objects.bulk_create(model(old=text, clinic=f"{number % 3}") for number, text in enumerate(LONG[:9]))
    nowhere = model.objects.create(old=LONG[9], clinic="").pk
    left = unproven(model).copy(size=4)
    assert list(left) == [nowhere]
    assert LONG[9] not in left[nowhere]
    assert copied(model) == [*LONG[:9], None]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT new FROM {model._meta.db_table} WHERE new IS NOT NULL ORDER BY id")
        assert [f"clinic-{number % 3}_" in raw for number, (raw,) in enumerate(cursor)] == [True] * 9


def test_a_field_of_ours_can_be_the_old_one(make_model: Make) -> None:
    model = make_model(
        old=fields.EncryptedTextField(),
        new=fields.EncryptedTextField(null=True, partition="elsewhere", record_format="compact"),
    )
    pks = fill(model, *LONG[:20])
    copy = ColumnCopy(model, "old", "new", canary={pks[3]: LONG[3]})
    assert copy.copy() == copy.compare() == {}
    assert copied(model) == LONG[:20]


def test_rows_that_a_manager_hides_are_copied_and_compared(make_model: Make) -> None:
    class Hiding(models.Manager[Any]):
        def get_queryset(self) -> Any:
            return super().get_queryset().none()

    model = make_model(old=StreamField(), new=fields.EncryptedTextField(null=True), objects=Hiding())
    model(old=LONG[0]).save()
    assert unproven(model).copy() == {}
    assert copied(model) == LONG[:1]
    model._base_manager.update(new=None)
    assert list(unproven(model).compare().values()) == ["it is not copied"]


def test_a_new_value_that_does_not_open_is_named(model: Any) -> None:
    fill(model, *LONG[:20])
    unproven(model).copy()
    (pk, *_) = model.objects.order_by("pk").values_list("pk", flat=True)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {model._meta.db_table} SET new = '{{}}' WHERE id = %s", [pk])
    assert unproven(model).compare() == {pk: "the new value: InvalidRecordError"}


def test_a_failing_database_is_no_value_that_can_not_be_decrypted(model: Any) -> None:
    fill(model, *LONG[:20])

    def failing(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if seen.append(sql) or len([each for each in seen if "RANDOM" not in each.upper()]) > 12:
            raise OperationalError("gone")
        return execute(sql, params, many, context)

    seen: list[str] = []
    with connection.execute_wrapper(failing), pytest.raises(OperationalError, match="gone"):
        unproven(model).copy()
    assert copied(model) == [None] * 20


@pytest.mark.skipif(connection.vendor != "mysql", reason="only MySQL has sessions of a smaller character set")
def test_keys_that_the_session_cannot_hold_are_gone_over_once(make_model: Make, make_alias: Callable[..., str]) -> None:
    model = make_model(
        old=StreamField(null=True),
        new=fields.EncryptedTextField(null=True),
        id=models.CharField(max_length=9, primary_key=True),
    )
    model.objects.bulk_create(model(id=key, old=f"value of {key}") for key in ("?", "a", "山", "田"))
    alias = make_alias("narrow", OPTIONS={"charset": "latin1"})
    copy = ColumnCopy(model, "old", "new", canary={"a": "value of a"}, using=alias)
    assert copy.copy(size=2) == copy.compare() == {}
    assert {row.pk: row.new for row in model.objects.all()} == {
        key: f"value of {key}" for key in ("?", "a", "山", "田")
    }


def test_what_is_copied_and_compared_is_in_the_audit_log(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    pks = fill(model, *LONG)
    caplog.set_level(logging.INFO, "django_asherah.audit")
    copy = ColumnCopy(model, "old", "new", canary={pks[0]: LONG[0]})
    with audit.acting_as("me"):
        copy.copy()
        copy.compare()
        model.objects.filter(pk=pks[3]).update(new="another")
        copy.compare()
    where = f"column={model._meta.label}.new database=default old=old"
    assert [text for text in caplog.messages if text.startswith("column_")] == [
        f"column_copied {where} values=40 bad=0 by=me",
        f"column_compared {where} values=40 bad=0 by=me",
        f"column_compared {where} values=39 bad=1 by=me",
    ]


def test_a_copy_without_its_key_is_in_the_audit_log(
    model: Any, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fill(model, *LONG)
    settings.STREAM_KEY = "wrong"
    with pytest.raises(ProofError), audit.acting_as("me"):
        unproven(model).copy()
    [line] = [text for text in caplog.messages if text.startswith("column_")]
    assert line.endswith(" old=old values=0 bad=0 error=ProofError by=me")
