"""A connection to MySQL or MariaDB that a ``USE`` has led to another database: the keys are where they were stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from django.db import connection, transaction

from django_asherah.envelope.records import KeyMeta
from django_asherah.metastores.database import DatabaseMetastore
from tests.databases import VENDOR, execute, record

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(VENDOR != "mysql", reason="only MySQL and MariaDB have USE"),
]

KEY = KeyMeta("_SK_s_p", 120)


@pytest.fixture(params=["with a key table of its own", "without one"])
def other(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a database that this connection uses until the test ends."""
    own = connection.settings_dict["NAME"]
    name = f"{own}_other"
    execute("default", f"DROP DATABASE IF EXISTS {name}")
    execute("default", f"CREATE DATABASE {name}")
    if request.param != "without one":
        execute("default", f"CREATE TABLE {name}.encryption_key LIKE {own}.encryption_key")
    execute("default", f"USE {name}")
    yield name
    execute("default", f"USE {own}")
    execute("default", f"DROP DATABASE {name}")


@pytest.mark.parametrize("is_atomic", [False, True])
def test_keys_are_found_as_they_were_stored(other: str, is_atomic: bool) -> None:
    metastore = DatabaseMetastore("default")
    with transaction.atomic() if is_atomic else nullcontext():
        assert metastore.store(KEY.key_id, record(120)) is True
        assert metastore.load(KEY) == record(120)
        assert metastore.load_many([KEY]) == {KEY: record(120)}
        assert metastore.load_latest(KEY.key_id) == record(120)
        assert metastore.load_latest_many([KEY.key_id]) == {KEY.key_id: record(120)}
        assert execute("default", "SELECT DATABASE()") == [(other,)]


def test_the_lifecycle_sees_and_replaces_them_too(other: str) -> None:
    metastore = DatabaseMetastore("default")
    assert metastore.store(KEY.key_id, record(120)) is True
    row = metastore.read(KEY)
    assert row is not None
    assert [row.record() for row in metastore.scan()] == [record(120)]
    assert metastore.count() == 1
    assert metastore.replace(row, record(120, 9)) is True
    assert metastore.load(KEY) == record(120, 9)
    assert execute("default", "SELECT DATABASE()") == [(other,)]
