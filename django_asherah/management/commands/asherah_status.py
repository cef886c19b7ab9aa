"""``manage.py asherah_status``."""

from __future__ import annotations

from argparse import ArgumentParser
from collections import Counter
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from django_asherah.envelope.partition import KeyKind
from django_asherah.envelope.records import MAX_CREATED, KeyMeta
from django_asherah.lifecycle import KeyInfo, KeyState, Listing, list_keys
from django_asherah.management.base import AsherahCommand, Outcome, positive, table

DAY = 24 * 60 * 60
MOST_PROBLEMS = 100
"""How many problems are listed one by one; the others are only counted."""


class Command(AsherahCommand):
    """Shows the key hierarchy."""

    help = "Show the key hierarchy: a summary, and each key with its state, parent and regions."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add filters and paging."""
        super().add_arguments(parser)
        parser.add_argument("--kind", choices=[kind.value for kind in KeyKind], help="only keys of this kind")
        parser.add_argument("--state", choices=[state.value for state in KeyState], help="only keys in this state")
        parser.add_argument("--partition", help="only this partition's keys")
        parser.add_argument("--region", help="only system keys wrapped for this region")
        parser.add_argument("--problems", action="store_true", help="only keys with problems")
        parser.add_argument("--all-services", action="store_true", help="also keys of other services in the table")
        parser.add_argument("--limit", type=positive, default=50, help="how many keys to show (default %(default)s)")
        parser.add_argument("--offset", type=_not_negative, default=0, help="how many keys to skip before them")

    def run(self, outcome: Outcome, **options: Any) -> None:
        """List."""
        summary = _Summary()
        listing = list_keys()
        wanted = (key for key in summary.watch(listing) if _is_wanted(key, options))
        shown = list(islice(wanted, options["offset"], options["offset"] + options["limit"]))
        left = sum(1 for _ in wanted)
        outcome.summary = summary.document(listing)
        outcome.items = [_document(key) for key in shown]
        for meta, problem in summary.problems:
            outcome.problem(str(meta), problem)
        if summary.problem_count > len(summary.problems):
            outcome.problem("keys", f"{summary.problem_count - len(summary.problems)} more problems: see --problems")
        for key_id, reason in listing.unreadable:
            outcome.problem(key_id, reason)
        if listing.unreadable.unlisted:
            outcome.problem("keys", f"{listing.unreadable.unlisted} more rows are no keys")
        for name, value in outcome.summary.items():
            outcome.say(f"{name.replace('_', ' ')}: {_text(value)}")
        outcome.say()
        for line in table([_HEADING, *map(_row, shown)]):
            outcome.say(line)
        if left:
            outcome.say(f"({left} more: --offset {options['offset'] + len(shown)})")


class _Summary:
    """Counts every key of a listing."""

    def __init__(self) -> None:
        self.states: Counter[str] = Counter()
        self.partitions = 0
        self.others = 0
        self.current: KeyInfo | None = None
        self.next_expiry: float | None = None
        self.problems: list[tuple[KeyMeta, str]] = []
        self.problem_count = 0
        self._last_id = ""

    def watch(self, listing: Listing) -> Any:
        """Yield every key, and count it."""
        for key in listing:
            self._count(key)
            yield key

    def _count(self, key: KeyInfo) -> None:
        if not key.ours:
            self.others += 1
            return
        self.states[f"{key.kind} {key.state}"] += 1
        self.problem_count += len(key.problems)
        if len(self.problems) < MOST_PROBLEMS:
            self.problems += [(key.meta, problem) for problem in key.problems]
        if not key.takes_writes:
            return  # Its partition may have a key of our own id, too, and when it expires concerns others.
        self.partitions += key.kind is KeyKind.INTERMEDIATE and key.meta.key_id != self._last_id
        self._last_id = key.meta.key_id
        if key.state is KeyState.CURRENT:
            self.next_expiry = min(key.expires, self.next_expiry or key.expires)
            if key.kind is KeyKind.SYSTEM:
                self.current = key

    def document(self, listing: Listing) -> dict[str, Any]:
        """Return the summary."""
        return {
            "current_system_key": str(self.current.meta) if self.current else None,
            "next_expiry": _moment(self.next_expiry) if self.next_expiry else None,
            "partitions": self.partitions,
            "keys": dict(sorted(self.states.items())),
            "keys_of_others": self.others,
            "other_rows": listing.other_rows,
        }


def _not_negative(text: str) -> int:
    return 0 if text == "0" else positive(text)


def _is_wanted(key: KeyInfo, options: dict[str, Any]) -> bool:
    return (
        (key.ours or options["all_services"])
        and options["kind"] in (None, key.kind)
        and options["state"] in (None, key.state)
        and options["partition"] in (None, key.partition)
        and (options["region"] is None or options["region"] in key.regions)
        and (not options["problems"] or bool(key.problems))
    )


def _document(key: KeyInfo) -> dict[str, Any]:
    return {
        "key_id": key.meta.key_id,
        "created": key.meta.created,
        "age": int(key.age),
        "kind": key.kind,
        "partition": key.partition,
        "expires": int(key.expires),
        "state": key.state.value,
        "parent": str(key.parent) if key.parent else None,
        "regions": key.regions,
        "problems": list(key.problems),
    }


_HEADING = ["kind", "partition", "created", "age", "expires", "state", "parent or regions", "problems"]


def _row(key: KeyInfo) -> list[str]:
    parent_or_regions = _moment(key.parent.created) if key.parent else ", ".join(key.regions)
    age = f"{int(key.age) // DAY} d"
    created, expires = _moment(key.meta.created), _moment(key.expires)
    name = (key.partition or "") if key.takes_writes else key.meta.key_id
    return [key.kind, name, created, age, expires, key.state.value, parent_or_regions, "; ".join(key.problems)]


def _moment(second: float) -> str:
    if second > MAX_CREATED:
        return "after the year 9999"
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%d %H:%M:%S}"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} {name}" for name, count in value.items()) or "none"
    return "none" if value is None else str(value)
