"""A system key and the intermediate keys under it."""

from __future__ import annotations

from django_asherah.admin.rows import describe_rows, described, key_rows, that_may_be_under
from django_asherah.lifecycle import KeyInfo
from django_asherah.lifecycle.context import Context
from django_asherah.models import EncryptionKey

PAGE = 50


class Tree:
    """The branch of the hierarchy around one key, so many rows at a time.

    Attributes:
        above: the system key, or None if it is missing.
        below: intermediate keys: all of one page under a system key; itself alone for an intermediate key.
        after: where the next page begins, or nothing.
    """

    def __init__(
        self, context: Context, row: EncryptionKey, info: KeyInfo, parent_pk: int | None, *, after: str
    ) -> None:
        self.after = ""
        self.above: EncryptionKey | None
        if info.kind == "intermediate":
            self.above = key_rows(context.table.alias).filter(pk=parent_pk).first()
            self.below = [row]
            if self.above:
                describe_rows(context, [self.above])
            return
        self.above = row
        rows = that_may_be_under(key_rows(context.table.alias), info.meta)
        if after.isdecimal():
            rows = rows.filter(pk__gt=after)
        window = list(rows.order_by("pk")[: PAGE + 1])
        if len(window) > PAGE:
            self.after = str(window[PAGE - 1].pk)
        describe_rows(context, window[:PAGE])
        self.below = [each for each in window[:PAGE] if is_under(each, info)]


def is_under(row: EncryptionKey, key: KeyInfo) -> bool:
    """Tell whether a row found by ``that_may_be_under`` has ``key`` above it."""
    info = described(row).info
    return info is not None and info.parent == key.meta
