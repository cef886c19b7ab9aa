"""A MariaDB server whose default time zone has a summer time: an hour that is missing, and one that comes twice."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from django.core import serializers
from django.db import connections, transaction
from pytest_django import DjangoDbBlocker, Settings

from django_asherah import engine
from django_asherah.checks.table import check_key_table
from django_asherah.envelope.records import KeyMeta
from django_asherah.metastores.database import DatabaseMetastore
from django_asherah.models import EncryptionKey
from tests.databases import ROOT, VENDOR, another_alias, as_asherah, execute, record, url_of
from tests.interop.peers import STATIC_KEY, Peer, static_config
from tests.mariadb_server import mariadb
from tests.metastores.test_shifted_rows import DDL

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(VENDOR != "mysql", reason="about MySQL's TIMESTAMP"),
]

PAGE = (ROOT / "docs" / "how-to" / "adopt-an-asherah-table.md").read_text(encoding="utf-8")
(BLOCK,) = [sql for sql in re.findall(r"^ *```sql\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE) if "JSON_VALUE" in sql]
STATEMENTS = [statement.strip() for statement in BLOCK.split(";") if statement.strip()]
"""The page's statements that put rows right."""

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


@pytest.mark.parametrize("core", ["rust", "go"])
def test_an_sdk_and_django_share_a_table_whose_server_is_not_in_utc(
    berlin: str, core: str, settings: Settings, start: Callable[..., Peer]
) -> None:
    """What an SDK stored in the server's zone is read, and the documentation's statements put it right for the SDKs."""
    settings.ASHERAH = as_asherah(DATABASE=berlin, KMS_OPTIONS={"key": STATIC_KEY.hex()})
    config = static_config(core, url_of(berlin))
    theirs = start(core, config).encrypt("theirs", b"before")

    assert engine.get_session("theirs").decrypt(theirs) == b"before"
    assert shifts(berlin) in ({-3600}, {-7200})
    ours = engine.get_session("ours").encrypt(b"value")
    assert shifts(berlin) in ({-3600, 0}, {-7200, 0})

    for statement in STATEMENTS:
        execute(berlin, statement)
    assert shifts(berlin) == {0}
    connections[berlin].close()
    if core == "go":
        config["ConnectionString"] += "?time_zone=%27%2B00%3A00%27"
        assert start(core, config).decrypt("ours", ours) == b"value"
        assert start(core, config).decrypt("theirs", theirs) == b"before"
    engine.reset()
    assert engine.get_session("theirs").decrypt(theirs) == b"before"
    assert engine.get_session("ours").decrypt(ours) == b"value"


def shifts(alias: str) -> set[int]:
    """Return by how many seconds the rows' columns are later than their records."""
    shift = "UNIX_TIMESTAMP(created) - JSON_VALUE(key_record, '$.Created')"
    return {int(each) for (each,) in execute(alias, f"SELECT DISTINCT {shift} FROM encryption_key")}


def test_a_server_that_is_not_in_utc_is_a_warning(berlin: str, settings: Settings) -> None:
    settings.ASHERAH = as_asherah(DATABASE=berlin)

    [message] = [each for each in check_key_table(None, databases=[berlin]) if each.id != "asherah.W032"]
    execute(berlin, "ALTER TABLE encryption_key MODIFY created DATETIME NOT NULL")
    left = [each.id for each in check_key_table(None, databases=[berlin])]

    assert message.id == "asherah.W035"
    assert "of type timestamp, and the server's time zone is CET, its system's" in message.msg
    assert left == ["asherah.W032"]


@pytest.mark.parametrize("natural", [False, True])
@pytest.mark.parametrize("format", ["json", "xml"])
def test_a_dump_of_such_a_table_loads_each_key(berlin: str, format: str, natural: bool) -> None:
    """The ORM reads and compares the column in the session's zone, where a time is missing or comes twice."""
    execute(berlin, "ALTER TABLE encryption_key ADD COLUMN row_id bigint NOT NULL AUTO_INCREMENT UNIQUE")
    metastore = DatabaseMetastore(berlin)
    times = [GAP - 3600, GAP, GAP + 1800, OVERLAP - 3600, OVERLAP, OVERLAP + 3600]
    written = {KeyMeta("_IK_a_s_p", created): record(created, n) for n, created in enumerate(times)}
    assert metastore.store_many(written) == set(written)
    dumped = serializers.serialize(format, EncryptionKey.objects.using(berlin).all(), use_natural_primary_keys=natural)

    load_all(berlin, format, dumped)
    assert metastore.load_many(list(written)) == written
    execute(berlin, "DELETE FROM encryption_key WHERE created > '2026-03-29 03:00:00'")
    load_all(berlin, format, dumped)

    assert metastore.count() == len(written)
    assert metastore.load_many(list(written)) == written


def load_all(alias: str, format: str, dumped: str) -> None:
    """As ``loaddata`` does."""
    with transaction.atomic(using=alias):
        for item in serializers.deserialize(format, dumped, using=alias):
            item.save(using=alias)
