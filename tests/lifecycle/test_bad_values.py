"""Of bad values the first are listed, and all are counted."""

from __future__ import annotations

import pickle

from django_asherah.lifecycle.bad_values import BadValue, BadValues
from django_asherah.lifecycle.first import MOST_LISTED


def some(count: int, column: str = "clinic.Patient.ssn") -> BadValues:
    values = BadValues()
    for number in range(count):
        values.add(BadValue(column, str(number), "DecryptionError", ""))
    return values


def test_what_there_is_no_room_for_is_only_counted() -> None:
    values = some(MOST_LISTED + 7)
    assert (len(values), values.total) == (MOST_LISTED, MOST_LISTED + 7)
    assert values[-1].pk == str(MOST_LISTED - 1)


def test_what_another_process_found_is_counted_too_and_fills_the_list() -> None:
    values, others = some(MOST_LISTED - 2), some(5, "clinic.Patient.notes")
    values.merge(pickle.loads(pickle.dumps(others)))
    assert [(value.column, value.pk) for value in values[-2:]] == [
        ("clinic.Patient.notes", "0"),
        ("clinic.Patient.notes", "1"),
    ]
    assert (len(values), values.total) == (MOST_LISTED, MOST_LISTED + 3)
