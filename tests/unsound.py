"""Rows of the key table that are no sound keys: what their columns and their records may be."""

from __future__ import annotations

from django.db import connections

from django_asherah.envelope.records import EnvelopeKeyRecord, encode_key
from tests.databases import VENDOR, execute

COPIED = "'2027-01-01 00:00:00'"
"""A row that was copied with this time."""

COLUMNS = {
    "postgresql": [
        "'infinity'",
        "'-infinity'",
        "'4713-01-01 00:00:00 BC'",
        "'0044-03-15 12:00:00 BC'",
        "'294276-12-31 23:59:59'",
        "'10000-01-01 00:00:00'",
        COPIED,
    ],
    "mysql": [
        "'0000-00-00 00:00:00'",
        "'2030-00-00 00:00:00'",
        "'0000-01-01 00:00:00'",
        "'1000-01-01 00:00:00'",
        "'2500-01-01 00:00:00'",
        "'9999-12-31 23:59:59'",
        COPIED,
    ],
    "sqlite": [
        "'any text'",
        "''",
        "'NULL'",
        "'now'",
        "7",
        "-1.5",
        "9e999",
        "x'00ff'",
        "CAST(x'ff41' AS text)",
        "'9999-12-31 23:59:60'",
        "'2026-11-24 00:00:00+00:00'",
        "'2026-11-24T00:00:00'",
        "'0000-00-00 00:00:00'",
        COPIED,
    ],
}[VENDOR]
"""What stands in the column, as SQL: no time that a key can have, or not the one that its record says."""

RECORDS = ["{}", "[]", '"text"', "null", "7", '{"Created": "1", "Key": "AAAA"}', '{"Created": 1.5, "Key": "AAAA"}']
"""JSON that is no key record."""


def plant(alias: str, key_id: str, created: str, record: EnvelopeKeyRecord | str) -> None:
    """Insert a row whose column is what this SQL says."""
    text = record if isinstance(record, str) else encode_key(record)
    statement = f"INSERT INTO encryption_key (id, created, key_record) VALUES (%s, {created}, %s)"
    if getattr(connections[alias], "mysql_is_mariadb", False):
        statement = f"SET STATEMENT sql_mode = '', time_zone = '+00:00' FOR {statement}"
    execute(alias, statement, [key_id, text])
