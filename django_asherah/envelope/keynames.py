"""Which records name the same key, told from their text: to read a thousand of them to learn of one key takes long."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from operator import itemgetter
from typing import cast

from django_asherah.envelope.compact import PREFIX_LENGTH, VERSION
from django_asherah.envelope.records import (
    SEALED_KEY_LENGTH,
    SEALED_OVERHEAD,
    DataRowKey,
    DataRowRecord,
    KeyMeta,
    encode_row,
)

_SAMPLE = encode_row(
    DataRowRecord(DataRowKey(10**9, bytes(SEALED_KEY_LENGTH), KeyMeta("id", 10**9)), bytes(SEALED_OVERHEAD))
)
_NAME_AT = _SAMPLE.index('"ParentKeyMeta"')
"""Where the canonical JSON of a record names its key, in the years 2001 to 2286."""

_PREFIX = itemgetter(slice(PREFIX_LENGTH))

_NAME = re.compile(r'"ParentKeyMeta":\{"KeyId":"[^"\\]*","Created":\d+')


def one_per_key(records: Sequence[str] | Sequence[bytes]) -> Collection[str | bytes]:
    """Return at least one record for each key that these records name.

    Args:
        records: all text, or all bytes. They may be no records at all.
    """
    if records and isinstance(records[0], str):
        return _one_per_name(cast(Sequence[str], records))
    if len(set(map(_PREFIX, records))) == 1 and records[0][:1] == VERSION:
        return records[:1]
    prefixes = {record[:PREFIX_LENGTH]: record for record in cast(Sequence[bytes], records)}
    return list(prefixes.values()) if all(prefix[:1] == VERSION for prefix in prefixes) else records


def _one_per_name(records: Sequence[str]) -> Collection[str]:
    first_name = itemgetter(slice(_NAME_AT, records[0].find("}", _NAME_AT)))
    if len(set(map(first_name, records))) == 1 and _NAME.fullmatch(first_name(records[0])):
        return records[:1]
    names = {record[_NAME_AT : record.find("}", _NAME_AT)]: record for record in records}
    # Another order of the members, or no record: then nobody knows where the name stands.
    return list(names.values()) if all(_NAME.fullmatch(name) for name in names) else records
