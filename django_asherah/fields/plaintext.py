"""What may pass for a value that was never encrypted, while a populated column moves in.

Records are told from values by their text alone, because a damaged record opens no more than a value does. So the rule
errs on one side only: a value may be taken for a damaged record, which is an error that says so; a record that lost its
end or is wrong in places is never taken for a value.
"""

from __future__ import annotations

_RECORD_STARTS = ('{"Key":{', '{"Data":"')
"""How records begin: as Go, Rust, C# and this app write them, and in the other order, which Java may choose."""

_RECORD_MEMBER = '"ParentKeyMeta"'
"""In every record, and past a damaged or missing start."""


def may_be_plaintext(raw: object) -> bool:
    """Tell whether a column value can't be a record, whole or damaged."""
    return isinstance(raw, str) and not raw.lstrip().startswith(_RECORD_STARTS) and _RECORD_MEMBER not in raw
