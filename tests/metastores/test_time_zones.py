"""Whatever time zones Django, the database and the server are set to, one second is one row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections
from pytest_django import Settings

from django_asherah.envelope.records import KeyMeta
from django_asherah.metastores.database import DatabaseMetastore
from tests.databases import VENDOR, execute, record

# In the last of these seconds, Berlin's clocks show the same wall time for the second time.
INSTANTS = [0, 1_795_478_400, 1_792_888_200, 1_792_891_800]
postgresql_only = pytest.mark.skipif(VENDOR != "postgresql", reason="only PostgreSQL has times with a zone")


@pytest.fixture(params=["Asia/Kolkata", "America/New_York", "Europe/Berlin"])
def aliases(request: pytest.FixtureRequest, shared_alias: str, make_alias: Callable[..., str]) -> list[str]:
    """Two aliases for one database, of different ``TIME_ZONE``."""
    changes = {**connections[shared_alias].settings_dict, "TIME_ZONE": request.param}
    return [shared_alias, make_alias("zoned", **changes)]


@pytest.mark.parametrize("created", INSTANTS)
def test_the_database_alias_may_be_in_any_time_zone(aliases: list[str], created: int) -> None:
    assert DatabaseMetastore(aliases[1]).store("_SK_s_p", record(created)) is True

    for alias in aliases:
        assert DatabaseMetastore(alias).load(KeyMeta("_SK_s_p", created)) == record(created)
        assert DatabaseMetastore(alias).store("_SK_s_p", record(created, 9)) is False


@pytest.mark.parametrize("created", INSTANTS)
def test_django_may_do_without_time_zones(alias: str, settings: Settings, created: int) -> None:
    DatabaseMetastore(alias).store("_IK_before_s_p", record(created))
    settings.USE_TZ, settings.TIME_ZONE = False, "Europe/Berlin"

    DatabaseMetastore(alias).store("_IK_after_s_p", record(created))

    for key_id in ("_IK_before_s_p", "_IK_after_s_p"):
        assert DatabaseMetastore(alias).load(KeyMeta(key_id, created)) == record(created)
    rows = execute(alias, "SELECT DISTINCT created FROM encryption_key")
    assert len(rows) == 1


@postgresql_only
@pytest.mark.parametrize("created", INSTANTS)
def test_the_session_may_be_in_any_time_zone(alias: str, created: int) -> None:
    execute(alias, "SET TIME ZONE 'Asia/Kolkata'")
    DatabaseMetastore(alias).store("_SK_s_p", record(created))
    execute(alias, "SET TIME ZONE 'America/New_York'")

    assert DatabaseMetastore(alias).load(KeyMeta("_SK_s_p", created)) == record(created)
    epoch: Any = execute(alias, "SELECT extract(epoch FROM created)::bigint FROM encryption_key")
    assert epoch == [(created,)]
    execute(alias, "SET TIME ZONE 'UTC'")
