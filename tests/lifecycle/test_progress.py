"""Progress: whoever does a long work is told how many more are done, and in the end that all are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_asherah import engine, lifecycle
from django_asherah.lifecycle.reencryption import Options
from tests.testapp.models import Note

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _three_partitions_and_five_notes(regional: Callable[..., None]) -> None:
    regional({"one": "arn-1"})
    for partition in ("a", "b"):
        engine.get_session(partition).encrypt(b"x")
    for number in range(5):
        Note.objects.create(body=f"note {number}")


WORKS: dict[str, tuple[Callable[..., Any], list[int]]] = {
    "rotate: the intermediate keys of a batch": (lambda **told: lifecycle.rotate(batch=2, **told), [2, 1]),
    "verify: each key": (lifecycle.verify_keys, [1, 1, 1, 1]),
    "re-wrap: each system key": (lifecycle.rewrap, [1]),
    "verify: the values of a batch": (lambda **told: lifecycle.verify_data(["testapp.Note.body"], **told), [5]),
    "re-encrypt: the values of a batch": (
        lambda **told: lifecycle.reencrypt(["testapp.Note.body"], options=Options(batch=2), **told),
        [2, 2, 1],
    ),
}


@pytest.mark.parametrize("name", WORKS)
def test_it_is_told_how_many_more(name: str) -> None:
    work, expected = WORKS[name]
    told: list[int] = []
    work(progress=told.append)
    assert told == expected
