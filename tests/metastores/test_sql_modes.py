"""Whatever a session's ``sql_mode``, a key's row is what was given: what writes it has a mode of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import connections

from django_asherah.envelope.records import KeyMeta
from django_asherah.metastores.database import DatabaseMetastore
from tests.databases import VENDOR, execute, record

KEY_ID = "_IK_a\\b'\"\\'%s_s_p"
MODES = ["", "NO_BACKSLASH_ESCAPES", "ANSI_QUOTES", "PAD_CHAR_TO_FULL_LENGTH", "STRICT_ALL_TABLES"]


@pytest.mark.skipif(VENDOR != "mysql", reason="only MySQL and MariaDB have modes")
@pytest.mark.parametrize("mode", MODES)
def test_a_key_with_every_kind_of_quote_is_stored_found_and_replaced(
    shared_alias: str, make_alias: Callable[..., str], mode: str
) -> None:
    settings = connections[shared_alias].settings_dict
    options = {**settings["OPTIONS"], "init_command": f"SET sql_mode = '{mode}'"}
    alias = make_alias("moded", **{**settings, "OPTIONS": options})
    metastore = DatabaseMetastore(alias)

    assert metastore.store(KEY_ID, record(120)) is True
    assert metastore.load(KeyMeta(KEY_ID, 120)) == record(120)
    assert metastore.load_latest(KEY_ID) == record(120)
    assert metastore.store(KEY_ID, record(120, 9)) is False
    row = metastore.read(KeyMeta(KEY_ID, 120))
    assert row is not None
    assert metastore.replace(row, record(120, 9)) is True

    assert metastore.load(KeyMeta(KEY_ID, 120)) == record(120, 9)
    assert execute(shared_alias, "SELECT id FROM encryption_key") == [(KEY_ID,)]
    assert execute(alias, "SELECT @@sql_mode") == [(mode,)]
