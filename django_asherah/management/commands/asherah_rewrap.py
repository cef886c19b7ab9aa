"""``manage.py asherah_rewrap``."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django_asherah.lifecycle import rewrap
from django_asherah.lifecycle.rewrapping import count_system_keys
from django_asherah.management.base import AsherahCommand, Outcome


class Command(AsherahCommand):
    """Wraps system keys for the regions that are configured now."""

    help = (
        "Wrap every system key for exactly the configured regions, after one was added or removed, a master key was "
        "replaced, or a region failed when the key was made. The key itself, its id and all data stay as they are."
    )
    writes = True

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options that permit more."""
        super().add_arguments(parser)
        parser.add_argument(
            "--old-master-key",
            action="append",
            default=[],
            dest="old_master_keys",
            metavar="NAME",
            help="a master key no longer configured that may unwrap the keys this time; may be repeated",
        )
        parser.add_argument(
            "--allow-missing-regions", action="store_true", help="go on even if a region does not answer"
        )

    def run(self, outcome: Outcome, **options: Any) -> None:
        """Re-wrap."""
        with self.progress("key", count_system_keys) as progress:
            report = rewrap(
                old_master_keys=options["old_master_keys"],
                allow_missing_regions=options["allow_missing_regions"],
                dry_run=options["dry_run"],
                progress=progress,
            )
        outcome.summary = {
            "rewrapped": len(report.rewrapped),
            "unchanged": len(report.unchanged),
            "failed": len(report.failed),
        }
        outcome.items = [{"key_id": meta.key_id, "created": meta.created} for meta in report.rewrapped]
        for meta, reason in report.failed.items():
            outcome.problem(str(meta), reason)
        for key_id, reason in report.unreadable:
            outcome.problem(key_id, reason)
        verb = "Would re-wrap" if options["dry_run"] else "Re-wrapped"
        outcome.say(f"{verb} {len(report.rewrapped)} system keys; {len(report.unchanged)} were right already.")
