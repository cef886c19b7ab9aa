"""A partition template: what it may look like, and that no two rows which differ ever make one partition."""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.utils.functional import lazystr
from django.utils.safestring import mark_safe
from hypothesis import given
from hypothesis import strategies as st

from django_asherah.exceptions import EncryptionError
from django_asherah.fields import EncryptedTextField
from django_asherah.fields.template import PartitionTemplate


def render(text: str, *values: Any) -> str:
    return PartitionTemplate(text).render(values)


class Names(enum.StrEnum):
    AB = "Ab"


class Numbers(enum.IntEnum):
    SEVEN = 7


class Named(int, enum.Enum):
    SEVEN = 7


class Spoken(UUID):
    def __str__(self) -> str:
        return "a UUID"


class SpokenDate(date):
    def isoformat(self) -> str:
        return "a day"

    __str__ = isoformat


class TestReading:
    @pytest.mark.parametrize("text", ["", "clinic", "clinic-7", "a_b", "ü", " "])
    def test_a_partition_without_braces_is_no_template(self, text: str) -> None:
        assert PartitionTemplate.find(text) is None
        assert EncryptedTextField(partition=text).template is None

    def test_none_is_no_template(self) -> None:
        assert PartitionTemplate.find(None) is None

    def test_names_in_their_order(self) -> None:
        template = PartitionTemplate("a-{b}:{c_id}/{b}")
        assert template.names == ("b", "c_id", "b")
        assert repr(template) == "<PartitionTemplate a-{b}:{c_id}/{b}>"
        assert template.render(["1", 2, "1"]) == "a-1:2/1"

    @pytest.mark.parametrize(("text", "partition"), [("}}{b}", "}1"), ("{b}{{", "1{")])
    def test_braces_that_are_meant_as_such(self, text: str, partition: str) -> None:
        assert render(text, 1) == partition

    @pytest.mark.parametrize(
        ("text", "partition"),
        [
            ("{{x-{b}", "{x-1"),
            ("a}}-{b}", "a}-1"),
            ("{{a}}-{b}", "{a}-1"),
            ("{b}-{{x}}", "1-{x}"),
            ("{{}}{b}", "{}1"),
            ("{{{b}}}", "{1}"),
        ],
    )
    def test_pairs_of_braces_that_are_meant_as_such(self, text: str, partition: str) -> None:
        assert render(text, 1) == partition

    @pytest.mark.parametrize(
        "text",
        ["{", "}", "a{", "a}b", "{a", "a}", "{a}}", "{{a}", "{a}{", "{a[}", "{a!}", "{a:{b", "clinic-{clinic_id"],
    )
    def test_a_brace_alone(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"^partition ") as caught:
            EncryptedTextField(partition=text)
        assert repr(text) in str(caught.value)

    @pytest.mark.parametrize("text", ["{}", "a-{}", "{a!r}", "{a!s}", "{a:>3}", "{a:{b}}", "{:x}", "{!r}"])
    def test_what_is_no_name(self, text: str) -> None:
        with pytest.raises(ValueError, match="between braces stands the name of a column"):
            EncryptedTextField(partition=text)


class TestValues:
    @pytest.mark.parametrize(
        ("value", "partition"),
        [
            (7, "p-7"),
            ("7", "p-7"),
            (0, "p-0"),
            (-7, "p--7"),
            (2**70, f"p-{2**70}"),
            (True, "p-True"),
            (False, "p-False"),
            (Numbers.SEVEN, "p-7"),
            (Named.SEVEN, "p-7"),
            (Names.AB, "p-Ab"),
            (mark_safe("Ab"), "p-Ab"),
            (UUID(int=255), "p-00000000-0000-0000-0000-0000000000ff"),
            (Spoken(int=255), "p-00000000-0000-0000-0000-0000000000ff"),
            (date(2026, 2, 28), "p-2026-02-28"),
            (SpokenDate(2026, 2, 28), "p-2026-02-28"),
            ("Az09.-", "p-Az09.-"),
            ("a_b", "p-a%5Fb"),
            ("a b", "p-a%20b"),
            (" ", "p-%20"),
            ("%20", "p-%2520"),
            ("a\0b", "p-a%00b"),
            ("{tenant}", "p-%7Btenant%7D"),
            ("é", "p-%C3%A9"),
            ("e\u0301", "p-e%CC%81"),
            ("٣", "p-%D9%A3"),
            ("😀", "p-%F0%9F%98%80"),
            ("a\n", "p-a%0A"),
            ("../x", "p-..%2Fx"),
            ("\u202e", "p-%E2%80%AE"),
        ],
    )
    def test_one_text_each(self, value: Any, partition: str) -> None:
        assert render("p-{tenant}", value) == partition

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (None, "which is None: set it before the row is saved"),
            ("", "which is empty"),
            (mark_safe(""), "which is empty"),
            (1.0, "and a float has no one text: use an integer, a string, a UUID or a date"),
            (float("nan"), "and a float has no one text"),
            (Decimal("1.0"), "and a Decimal has no one text"),
            (datetime(2026, 1, 1, tzinfo=UTC), "and a datetime has no one text"),
            (time(1), "and a time has no one text"),
            (timedelta(1), "and a timedelta has no one text"),
            (b"a", "and a bytes has no one text"),
            ([], "and a list has no one text"),
            ({}, "and a dict has no one text"),
            (lazystr("a"), "has no one text"),
            ("a\ud800", "which holds lone surrogates"),
        ],
    )
    def test_what_has_no_text_or_more_than_one(self, value: Any, reason: str) -> None:
        with pytest.raises(EncryptionError) as caught:
            render("p-{tenant}", value)
        assert str(caught.value).startswith("its partition 'p-{tenant}' needs 'tenant', ")
        assert reason in str(caught.value)

    def test_an_error_does_not_show_the_value(self) -> None:
        with pytest.raises(EncryptionError) as caught:
            render("p-{tenant}", "900-12\ud800")
        assert "900-12" not in str(caught.value)
        assert caught.value.__cause__ is None


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
ROW = st.one_of(TEXTS, st.integers(), st.uuids(), st.dates(), st.booleans())


class TestDistinct:
    @given(st.sampled_from(["{a}:{b}", "x-{a}:{b}", "{a}_{b}-", "{a}{{{b}", "a%{a} {b}", "{a}-:-{b}"]), st.data())
    def test_two_rows_never_make_one_partition(self, text: str, data: st.DataObject) -> None:
        template = PartitionTemplate(text)
        assert not template.is_ambiguous
        kind = data.draw(
            st.sampled_from([TEXTS, st.integers(), st.sampled_from(["a", "a:", ":a", "%3A", "_", "-", "a-"])])
        )
        one, two = data.draw(st.tuples(kind, kind)), data.draw(st.tuples(kind, kind))
        assert (template.render(one) == template.render(two)) == (tuple(map(str, one)) == tuple(map(str, two)))

    @given(TEXTS, TEXTS)
    def test_two_texts_never_make_one_partition(self, one: str, two: str) -> None:
        assert (render("p-{a}", one) == render("p-{a}", two)) == (one == two)

    @given(ROW)
    def test_a_partition_holds_nothing_that_a_key_id_could_mistake(self, value: Any) -> None:
        partition = render("{a}", value)
        assert partition.isascii()
        assert set(partition) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-%")

    @pytest.mark.parametrize(
        "text", ["{a}{b}", "{a}-{b}", "{a}.{b}", "{a}x{b}", "{a}1{b}", "{a}%{b}", "{a}%3A{b}", "{a}:{b}{c}"]
    )
    def test_what_could_stand_in_a_value_separates_nothing(self, text: str) -> None:
        assert PartitionTemplate(text).is_ambiguous

    @pytest.mark.parametrize(
        "text", ["{a}", "x{a}x", "{a}:{b}", "{a}é{b}", "{a}-:-{b}", "{a}{{{b}", "{a} {b}", "x{a}_{b}/{c}y"]
    )
    def test_what_no_value_holds_separates(self, text: str) -> None:
        assert not PartitionTemplate(text).is_ambiguous
