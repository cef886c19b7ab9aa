"""The check of sessions that cut what is too long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_asherah.checks.strictness import check_strictness
from tests.databases import VENDOR

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.skipif(VENDOR != "mysql", reason="only MySQL and MariaDB have sessions that are not strict")
def test_a_session_that_is_not_strict_is_told_of(make_alias: Callable[..., str]) -> None:
    lenient = make_alias("lenient", OPTIONS={"init_command": "SET sql_mode = 'ANSI_QUOTES'"})
    (warning,) = check_strictness(None, databases=["default", lenient])
    assert (warning.id, "'lenient'" in warning.msg) == ("asherah.W130", True)


def test_a_strict_one_and_other_databases_are_left_alone(transactional_db: Any) -> None:
    assert check_strictness(None, databases=["default", "other"]) == []
    assert check_strictness(None) == []
