"""Which row holds which key, whatever time zone's clock its column shows."""

from __future__ import annotations

import pytest

from django_asherah.envelope.records import KeyMeta, encode_key
from django_asherah.metastores.shifts import (
    MAX_SHIFT,
    NO_TIME,
    Row,
    created_of,
    fault_of,
    in_order,
    newest_of,
    pick,
    with_others_of_their_names,
)
from tests.databases import record

NOON = 1_795_521_600  # 2026-11-24T12:00:00Z
HOUR = 3600
ID = "_IK_a_s_p"


def row(created: int, shift: int = 0, key_id: str = ID) -> Row:
    return key_id, encode_key(record(created)), created + shift


BROKEN: Row = (ID, "{", NOON)


@pytest.mark.parametrize("shift", [0, 15 * 60, -HOUR, 2 * HOUR, 20_700, -12 * HOUR, 14 * HOUR, MAX_SHIFT, -MAX_SHIFT])
def test_a_column_that_a_time_zone_explains_is_no_reason_to_doubt_the_record(shift: int) -> None:
    assert created_of(row(NOON, shift)) == NOON


@pytest.mark.parametrize("shift", [1, -60, 14 * 60, HOUR + 1, MAX_SHIFT + 15 * 60, -7 * 86_400])
def test_one_that_no_time_zone_explains_is(shift: int) -> None:
    assert created_of(row(NOON, shift)) is None


def test_a_broken_record_says_no_time() -> None:
    assert created_of(BROKEN) is None


def test_the_newest_is_the_one_whose_record_says_so() -> None:
    utc, berlin = row(NOON), row(NOON + 1800, -2 * HOUR)

    assert newest_of([]) is None
    assert newest_of([berlin]) == berlin
    assert newest_of([utc, berlin]) == berlin


@pytest.mark.parametrize("first", [BROKEN, row(NOON - 60, 60), row(NOON + 86_400, 60)])
def test_a_last_row_that_no_time_zone_explains_stays_the_answer(first: Row) -> None:
    assert newest_of([first, row(NOON + 1800, -2 * HOUR)]) == first


def test_and_below_the_last_row_such_a_one_is_passed_over() -> None:
    assert newest_of([row(NOON), row(NOON + 1800, -1801), BROKEN]) == row(NOON)


def test_a_key_is_found_beside_its_place() -> None:
    rows = [row(NOON, -2 * HOUR), row(NOON + 60, 5 * HOUR), row(NOON, HOUR, "_IK_b_s_p")]
    wanted = [KeyMeta(ID, NOON), KeyMeta(ID, NOON + 60), KeyMeta("_IK_b_s_p", NOON), KeyMeta(ID, NOON + 120)]

    assert pick(rows, wanted) == dict(zip(wanted[:3], rows, strict=True))


def test_the_row_in_the_very_place_goes_before_the_others() -> None:
    rows = [row(NOON, -2 * HOUR), row(NOON), row(NOON, 2 * HOUR)]

    assert pick(rows, [KeyMeta(ID, NOON)]) == {KeyMeta(ID, NOON): rows[1]}


def test_of_two_beside_it_the_later_one_goes_first_in_whatever_order_they_come() -> None:
    rows = [row(NOON, -2 * HOUR), row(NOON, 2 * HOUR), row(NOON, HOUR)]

    assert pick(rows, [KeyMeta(ID, NOON)]) == pick(rows[::-1], [KeyMeta(ID, NOON)]) == {KeyMeta(ID, NOON): rows[1]}


@pytest.mark.parametrize("planted", [BROKEN, row(NOON - 60, 60)])
def test_what_no_time_zone_has_put_into_a_keys_place_hides_no_key_beside_it(planted: Row) -> None:
    assert pick([planted, row(NOON, -2 * HOUR)], [KeyMeta(ID, NOON)]) == {KeyMeta(ID, NOON): row(NOON, -2 * HOUR)}


@pytest.mark.parametrize("shift", [60, -7 * HOUR + 1, MAX_SHIFT + 15 * 60])
def test_nor_is_a_row_taken_that_no_time_zone_has_put_there(shift: int) -> None:
    assert pick([row(NOON, shift)], [KeyMeta(ID, NOON)]) == {}


def test_rows_come_in_the_order_of_their_keys() -> None:
    first, second, third = row(NOON + 3 * HOUR, -5 * HOUR), row(NOON + HOUR, 0), row(NOON - 90 * 86_400)
    other = row(NOON + 9 * HOUR, 0, "_IK_b_s_p")

    assert list(in_order([second, first, third, other])) == [first, second, third, other]
    assert list(in_order([])) == []


def test_a_row_that_no_time_zone_explains_comes_where_its_column_puts_it() -> None:
    rows = [row(NOON + 3 * HOUR), row(NOON - 60, 2 * HOUR + 1), BROKEN, row(NOON - HOUR)]

    assert list(in_order(rows)) == rows


def test_a_row_that_stands_at_no_time_holds_no_other_back() -> None:
    no_time: Row = (ID, encode_key(record(NOON)), NO_TIME)
    rows = [row(NOON + 60), no_time, row(NOON)]

    assert sorted(in_order([no_time, *rows, no_time])) == sorted([no_time, *rows, no_time])
    assert [each for each in in_order(rows) if each != no_time] == [rows[0], rows[2]]


@pytest.mark.parametrize("has_zones", [False, True])
def test_a_column_that_the_record_cant_explain_is_a_fault(has_zones: bool) -> None:
    assert fault_of(row(NOON), has_zones=has_zones) == ""
    assert fault_of(BROKEN, has_zones=has_zones) == ""
    assert fault_of(row(NOON, 77), has_zones=has_zones) == (
        "it is stored as created 1795521677, but its record says 1795521600 (2026-11-24 12:00:00 UTC), so that nothing "
        "written under it could be read: correct that, or remove the row"
    )
    assert "is no time that a key can have" in fault_of((ID, row(NOON)[1], NO_TIME), has_zones=has_zones)


def test_what_time_zones_explain_is_a_fault_where_sessions_have_none() -> None:
    assert fault_of(row(NOON, HOUR), has_zones=True) == ""
    assert fault_of(row(NOON, HOUR), has_zones=False).startswith("it is stored as created 1795525200, but")


@pytest.mark.parametrize("shifts", [(2 * HOUR, 0, -HOUR), (2 * HOUR, HOUR, -HOUR)])
def test_of_rows_of_one_name_all_but_one_have_another_in_their_place(shifts: tuple[int, ...]) -> None:
    junk, before, after = row(NOON - 60, 60), row(NOON + 900), row(NOON - 900)
    same = [row(NOON, shift) for shift in shifts]
    rows = sorted([*same, junk, before, after], key=lambda each: -each[2])

    doubtful = [each for each, has_other in with_others_of_their_names(in_order(rows)) if has_other]

    chosen = pick(rows, [KeyMeta(ID, NOON)])[KeyMeta(ID, NOON)]
    assert sorted([*doubtful, chosen]) == sorted(same)
