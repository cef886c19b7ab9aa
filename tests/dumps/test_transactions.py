"""A load that is undone, or is part of something larger; and loads that are not ``loaddata``."""

from __future__ import annotations

import unittest

import pytest
from django.db import IntegrityError, connection, transaction
from django.test import TestCase

from django_asherah import engine
from django_asherah.models import EncryptionKey
from tests.databases import VENDOR, execute
from tests.dumps.conftest import Dump, Write
from tests.dumps.helpers import fill, keys_of, load, make_keys, note_row, values_of, wipe
from tests.testapp.models import Note

pytestmark = pytest.mark.django_db(transaction=True)


class UndoneError(Exception):
    """What an outer transaction is rolled back for."""


def test_a_load_that_is_rolled_back_leaves_no_value_without_its_key(dump: Dump) -> None:
    make_keys(days_old=1)
    fill()
    keys, values, path = keys_of(), values_of(), dump()
    wipe()

    with pytest.raises(UndoneError), transaction.atomic():
        Note.objects.create(pk=10_000, body="in the same transaction")
        load(path)
        assert values_of().items() >= values.items()
        raise UndoneError

    assert values_of() == {}
    Note.objects.create(body="afterwards")
    load(path, exclude=["testapp"])
    assert [row[2] for row in values_of().values()] == ["afterwards"]
    assert keys.items() <= keys_of().items()


def test_a_load_that_fails_in_the_middle(write: Write, dump: Dump) -> None:
    make_keys(days_old=1)
    Note.objects.create(pk=5, body="old")
    keys = keys_of()
    with pytest.raises(IntegrityError):
        load(write(note_row(), {**note_row(78), "fields": {"title": None}}))
    assert [row[2] for row in values_of().values()] == ["old"]
    assert keys_of() == keys


@pytest.mark.skipif(VENDOR != "postgresql", reason="a feature of PostgreSQL: Django sets sequences back after a load")
@pytest.mark.parametrize(("isolation", "sets_back"), [("READ COMMITTED", False), ("REPEATABLE READ", True)])
def test_a_sequence_that_was_set_back_stops_no_new_key(dump: Dump, isolation: str, sets_back: bool) -> None:
    make_keys(days_old=1)
    Note.objects.create(body="b")
    values, path = values_of(), dump()
    wipe()
    with transaction.atomic():
        execute("default", f"SET TRANSACTION ISOLATION LEVEL {isolation}")
        load(path)
    keys, greatest = keys_of(), max(key.pk for key in EncryptionKey.objects.all())
    sequence = execute("default", "SELECT pg_get_serial_sequence('encryption_key', 'row_id')")[0][0]
    assert (execute("default", f"SELECT last_value FROM {sequence}")[0][0] < greatest) is sets_back

    made = engine.get_factory().current_keys(f"member-{number}" for number in range(greatest + 1))

    assert keys_of().items() > keys.items()
    assert len(keys_of()) == EncryptionKey.objects.count() == len(keys) + len(made)
    assert values_of() == values


def test_serialized_rollback(dump: Dump) -> None:
    """As ``TransactionTestCase`` has it: the database is kept as text, flushed, and restored."""
    make_keys(days_old=1)
    fill()
    keys, values = keys_of(), values_of()
    # Of data, it keeps what apps with migrations have, and the tests' own has none.
    contents = [connection.creation.serialize_db_to_string(), dump().read_text()]
    wipe()
    for content in contents * 2:
        connection.creation.deserialize_db_from_string(content)
        assert keys_of() == keys
    assert values_of() == values


def test_fixtures_of_a_test_case(dump: Dump) -> None:
    make_keys(days_old=1)
    fill()
    keys, values, path = keys_of(), values_of(), dump()
    wipe()

    class WithFixtures(TestCase):
        fixtures = (str(path),)

        def test_they_are_there(self) -> None:
            assert values_of() == values

        def test_they_are_there_again(self) -> None:
            assert values_of() == values
            assert keys.items() <= keys_of().items()

    for _ in range(2):
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(WithFixtures).run(result)
        assert (result.testsRun, result.errors, result.failures) == (2, [], [])
    assert values_of() == {}
