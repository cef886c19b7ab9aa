"""A MariaDB server whose default time zone has a summer time: an hour that is missing, and one that comes twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pytest_django import DjangoDbBlocker, Settings

from django_asherah import engine
from django_asherah.envelope.records import KeyMeta
from django_asherah.metastores.database import DatabaseMetastore
from tests.databases import VENDOR, another_alias, as_asherah, execute, record, url_of
from tests.interop.peers import STATIC_KEY, Peer, static_config
from tests.mariadb_server import PROGRAM, mariadb
from tests.metastores.test_shifted_rows import DDL

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(VENDOR != "mysql", reason="about MySQL's TIMESTAMP"),
    pytest.mark.skipif(not PROGRAM, reason="mariadbd, which a test starts for itself, is not on this machine"),
]

GAP = 1_774_749_600  # 2026-03-29T02:00:00Z; Berlin has no such hour on that day.
OVERLAP = 1_792_893_600  # 2026-10-25T02:00:00Z; Berlin has this hour twice.


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with mariadb(tmp_path_factory.mktemp("berlin"), "Europe/Berlin") as settings:
        yield settings


@pytest.fixture(params=["STRICT_TRANS_TABLES", ""], ids=["strict", "not strict"])
def berlin(request: pytest.FixtureRequest, server: dict[str, str], django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    options = {"init_command": f"SET sql_mode = '{request.param}'"}
    with django_db_blocker.unblock(), another_alias("berlin", **server, OPTIONS=options) as alias:
        execute(alias, DDL)
        yield alias
        execute(alias, "DROP TABLE encryption_key")


@pytest.mark.parametrize("hour", [GAP, OVERLAP, OVERLAP - 3600], ids=["gap", "overlap", "hour before"])
def test_every_minute_is_a_key_of_its_own(berlin: str, hour: int) -> None:
    metastore = DatabaseMetastore(berlin)
    written = {KeyMeta("_IK_a_s_p", hour + 60 * n): record(hour + 60 * n, n) for n in range(62)}

    for meta, each in written.items():
        assert metastore.store(meta.key_id, each) is True
        assert metastore.load_latest(meta.key_id) == each

    assert metastore.load_many(list(written)) == written
    assert [row.record() for row in metastore.scan()] == list(reversed(written.values()))
    stored = execute(berlin, "SELECT UNIX_TIMESTAMP(created) FROM encryption_key ORDER BY 1")
    assert stored == [(meta.created,) for meta in written]


@pytest.mark.parametrize(("core", "in_utc"), [("rust", ""), ("go", "?time_zone=%27%2B00%3A00%27")])
def test_an_sdk_shares_a_table_whose_server_is_not_in_utc(
    berlin: str, core: str, in_utc: str, settings: Settings, start: Callable[..., Peer]
) -> None:
    """What it stored in the server's zone is read; and what is stored now, it reads, the Go core if told to be in UTC."""
    settings.ASHERAH = as_asherah(DATABASE=berlin, KMS_OPTIONS={"key": STATIC_KEY.hex()})
    config = static_config(core, url_of(berlin))
    theirs = start(core, config).encrypt("theirs", b"before")

    assert engine.get_session("theirs").decrypt(theirs) == b"before"
    shifts = execute(
        berlin, "SELECT DISTINCT UNIX_TIMESTAMP(created) - JSON_VALUE(key_record, '$.Created') FROM encryption_key"
    )
    assert shifts in ([(-3600,)], [(-7200,)])

    ours = engine.get_session("ours").encrypt(b"value")
    config["ConnectionString"] += in_utc
    assert start(core, config).decrypt("ours", ours) == b"value"
