"""What stands above the list of keys: how the hierarchy is, at a glance."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, cast

from django.http import HttpRequest
from django.utils.timesince import timesince

from django_asherah.admin.cells import moment
from django_asherah.admin.rows import key_rows, read_row
from django_asherah.envelope.partition import KeyKind
from django_asherah.kms.health import LastAnswer
from django_asherah.kms.regional import is_regional
from django_asherah.lifecycle import KeyInfo, KeyState
from django_asherah.lifecycle.context import Context, get_context

MOST_SYSTEM_KEYS = 1000
"""System keys read for their regions, the newest first: at one in 90 days and service, more than anybody has."""


@dataclass(frozen=True, slots=True)
class RegionNow:
    """A configured region, and how its last answer to this process was; None if it was not asked yet."""

    name: str
    is_preferred: bool
    answer: LastAnswer | None

    @property
    def ago(self) -> str:
        """How long ago that was."""
        if self.answer is None:
            return ""
        return "just now" if self.answer.age < 60 else f"{_lasting(self.answer.age)} ago"


class Overview:
    """The key hierarchy at a glance, with three queries at the most. Asks no KMS."""

    def __init__(self, context: Context) -> None:
        self.context = context

    @cached_property
    def system_keys(self) -> list[tuple[int, KeyInfo]]:
        """The readable system keys with their rows' primary keys, the newest first."""
        rows = key_rows(self.context).of_kind(KeyKind.SYSTEM).order_by("-created")[:MOST_SYSTEM_KEYS]
        seen: set[str] = set()
        keys = []
        for row in rows:
            key = read_row(self.context, row, is_newest=row.key_id not in seen)
            if isinstance(key, KeyInfo):
                if not key.is_from_future:
                    seen.add(row.key_id)
                keys.append((row.pk, key))
        return keys

    @property
    def current(self) -> tuple[int, KeyInfo] | None:
        """The system key that new intermediate keys are made under; None if the next write makes one."""
        return next(
            ((pk, key) for pk, key in self.system_keys if key.takes_writes and key.state is KeyState.CURRENT), None
        )

    @cached_property
    def unsound(self) -> list[int]:
        """The primary keys of rows that are no keys: see :meth:`KeyRows.unsound`."""
        return key_rows(self.context).unsound()

    @cached_property
    def next_to_expire(self) -> tuple[int, KeyInfo] | None:
        """Our own key that is the next to take no more writes."""
        rows = key_rows(self.context).ours(self.context).in_state(KeyState.CURRENT, self.context, self.unsound)
        row = rows.order_by("created").first()
        key = row and read_row(self.context, row, is_newest=True)
        return (row.pk, key) if row and isinstance(key, KeyInfo) else None

    @property
    def regions(self) -> list[RegionNow]:
        """The configured regions, the preferred one first."""
        configured, kms = self.context.regions or {}, self.context.factory.kms
        answers = kms.last_answers() if is_regional(kms) else {}
        return [
            RegionNow(region, is_preferred=not number, answer=answers.get(region))
            for number, region in enumerate(configured)
        ]

    def _age(self, key: KeyInfo) -> str:
        return _lasting(self.context.factory.clock() - key.meta.created)

    def summary(self) -> dict[str, Any]:
        """Return what the template shows."""
        current, expiring = self.current, self.next_to_expire
        return {
            "current": current
            and {"pk": current[0], "made": moment(current[1].meta.created), "age": self._age(current[1])},
            "expiring": expiring
            and {"pk": expiring[0], "key_id": expiring[1].meta.key_id, "at": moment(expiring[1].expires)},
            "regions": self.regions,
            "kms": type(self.context.factory.kms).__name__,
        }


def _lasting(seconds: float) -> str:
    """Return a length of time in words."""
    if seconds < 60:
        return "less than a minute"
    now = datetime.now(UTC)
    return timesince(now - timedelta(seconds=seconds), now)


def get_overview(request: HttpRequest) -> Overview:
    """Return the request's overview; one is enough for all that a page shows.

    Raises:
        ImproperlyConfigured: the settings are wrong.
        MetastoreError: the metastore can't list its keys.
    """
    holder = cast(Any, request)
    if not hasattr(holder, "asherah_overview"):
        holder.asherah_overview = Overview(get_context())
    overview: Overview = holder.asherah_overview
    return overview
