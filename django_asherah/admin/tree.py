"""A system key and the intermediate keys under it."""

from __future__ import annotations

from django_asherah.admin.rows import attach_infos, info_of, key_rows
from django_asherah.envelope.partition import KeyKind
from django_asherah.lifecycle import KeyInfo
from django_asherah.lifecycle.context import Context
from django_asherah.models import EncryptionKey

CHILDREN_PER_PAGE = 50


class Tree:
    """The branch of the hierarchy around one key, so many rows at a time.

    Attributes:
        parent: the system key, or None if it is missing.
        children: intermediate keys: all of one page under a system key; itself alone for an intermediate key.
        after: where the next page begins, or nothing.
        is_later_page: whether there are pages before this one.
    """

    def __init__(
        self, context: Context, row: EncryptionKey, key: KeyInfo, parent_pk: int | None, *, after: str
    ) -> None:
        self.after, self.is_later_page = "", False
        self.parent: EncryptionKey | None
        if key.kind is KeyKind.INTERMEDIATE:
            self.parent = key_rows(context).filter(pk=parent_pk).first()
            self.children = [row]
            if self.parent:
                attach_infos(context, [self.parent])
            return
        self.parent = row
        rows = key_rows(context).candidate_children(key.meta)
        if after.isdecimal():
            rows, self.is_later_page = rows.filter(pk__gt=after), True
        window = list(rows.order_by("pk")[: CHILDREN_PER_PAGE + 1])
        if len(window) > CHILDREN_PER_PAGE:
            self.after = str(window[CHILDREN_PER_PAGE - 1].pk)
        attach_infos(context, window[:CHILDREN_PER_PAGE])
        self.children = [each for each in window[:CHILDREN_PER_PAGE] if _is_child(each, key)]


def _is_child(row: EncryptionKey, parent: KeyInfo) -> bool:
    key = info_of(row).key
    return key is not None and key.parent == parent.meta
