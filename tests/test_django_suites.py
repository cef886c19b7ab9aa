"""How the outcome of Django's own suites is held against the record of what is refused."""

import hashlib
import re

import pytest

from scripts.suites_source import _check
from scripts.suites_verdict import Outcome, Reason, find_problems, read_record

SORTING = Reason(
    "an encrypted column can't be sorted by", re.compile("no useful order"), frozenset({"queries.tests.T.test_a"})
)
REFUSED = {"queries.tests.T.test_a": "FieldError: X is encrypted: its records have no useful order"}


def outcome(failed=REFUSED, swapped=3):
    return Outcome(frozenset({"queries.tests.T.test_a", "queries.tests.T.test_b"}), dict(failed), swapped)


def problems(*, queries, reasons=(SORTING,)):
    return list(find_problems({"queries": queries}, list(reasons)))


def test_what_fails_as_recorded_is_no_problem():
    assert problems(queries=outcome()) == []


def test_a_failure_that_is_not_listed_is_one():
    failed = {**REFUSED, "queries.tests.T.test_b": "AssertionError: 1 != 2\nmore"}

    assert problems(queries=outcome(failed)) == [
        "queries.tests.T.test_b: fails, and is not listed: AssertionError: 1 != 2"
    ]


def test_a_listed_test_that_fails_otherwise_is_one():
    error = "DecryptionError: damaged"

    assert problems(queries=outcome({"queries.tests.T.test_a": error})) == [
        "queries.tests.T.test_a: fails otherwise than listed (an encrypted column can't be sorted by): " + error
    ]


def test_a_listed_test_that_passes_is_one():
    assert problems(queries=outcome({})) == [
        "queries.tests.T.test_a: passes, or is gone, and is listed as refused: an encrypted column can't be sorted by"
    ]


def test_a_listed_class_that_is_set_up_is_one():
    reason = Reason("no", re.compile(""), frozenset({"setUpClass (queries.tests.T)"}))

    assert problems(queries=outcome({}), reasons=[reason]) == [
        "setUpClass (queries.tests.T): passes, or is gone, and is listed as refused: no"
    ]


def test_a_listed_test_of_a_label_that_was_not_asked_for_is_none():
    assert list(find_problems({"lookup": outcome({})}, [SORTING])) == []


def test_a_label_without_a_swapped_field_is_one():
    assert problems(queries=outcome(swapped=0)) == ["queries: has no field that could be swapped"]


@pytest.mark.parametrize("missing", [None, Outcome(swapped=1)])
def test_a_label_that_ran_no_test_is_one(missing):
    assert problems(queries=missing, reasons=[]) == ["queries: ran no test"]


def test_a_test_under_two_reasons_is_an_error(tmp_path):
    table = "[[refusals]]\nreason = 'r'\nerror = 'e'\ntests = ['a.b.c']\n"
    path = tmp_path / "record.toml"
    path.write_text(table + table.replace("refusals", "bugs"))

    with pytest.raises(ValueError, match=r"a\.b\.c is listed twice"):
        read_record(path)


def test_an_archive_that_is_not_what_the_index_says_is_an_error():
    right = hashlib.sha256(b"archive").hexdigest()
    file = {"filename": "django-1.tar.gz", "hashes": {"sha256": right}}

    _check(b"archive", file)
    with pytest.raises(ValueError, match=r"django-1\.tar\.gz has the SHA-256"):
        _check(b"another", file)
