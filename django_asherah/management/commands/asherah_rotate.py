"""``manage.py asherah_rotate``."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django_asherah.lifecycle import rotate
from django_asherah.management.base import AsherahCommand, Outcome


class Command(AsherahCommand):
    """Makes newer keys."""

    help = (
        "Make a new system key, and under it a new intermediate key for every partition in use. Nothing is rewritten, "
        "and what older keys sealed stays readable. Running processes follow within the revoke check interval."
    )
    writes = True

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add what to rotate."""
        super().add_arguments(parser)
        parser.add_argument(
            "--partition",
            action="append",
            dest="partitions",
            metavar="NAME",
            help="only this partition; may be repeated",
        )
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--expired", action="store_true", help="only keys that are expired or revoked; for cron")
        which.add_argument("--resume", action="store_true", help="finish a rotation that was interrupted")
        parser.add_argument(
            "--allow-missing-regions",
            action="store_true",
            help="go on even if a region can't wrap a key; run asherah_rewrap when it can again",
        )

    def run(self, outcome: Outcome, **options: Any) -> None:
        """Rotate."""
        names = ("partitions", "expired", "resume", "allow_missing_regions")
        chosen = {name: options[name] for name in names}
        with self.progress("key", lambda: rotate(**chosen, dry_run=True).intermediate_keys.total) as progress:
            report = rotate(**chosen, dry_run=options["dry_run"], progress=progress)
        keys = [*([report.system_key] if report.system_key else []), *report.intermediate_keys]
        outcome.summary = {
            "system_keys": int(report.system_key is not None),
            "intermediate_keys": report.intermediate_keys.total,
            "missing_regions": report.failed_regions,
        }
        outcome.items = [
            {"key_id": key if isinstance(key, str) else key.key_id, "created": getattr(key, "created", None)}
            for key in keys
        ]
        verb, total = "Would make" if options["dry_run"] else "Made", report.intermediate_keys.total
        outcome.say(f"{verb} {outcome.summary['system_keys']} system key and {total} intermediate keys.")
        for region, reason in report.failed_regions.items():
            if options["allow_missing_regions"]:
                outcome.say(f"Without region {region}: {reason}")
            else:
                outcome.problem(region, reason)
        if keys and not options["dry_run"]:
            outcome.say("To rewrite data under the new keys, run: manage.py asherah_reencrypt")
