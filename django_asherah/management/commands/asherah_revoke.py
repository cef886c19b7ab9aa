"""``manage.py asherah_revoke``."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from django_asherah.lifecycle import revoke
from django_asherah.management.base import USAGE, AsherahCommand, Outcome


class Command(AsherahCommand):
    """Withdraws a key from new writes."""

    help = (
        "Withdraw a key from new writes. What it sealed stays readable. Running processes notice within the revoke "
        "check interval and switch to a new key."
    )
    writes = True

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the arguments that name the key."""
        super().add_arguments(parser)
        parser.add_argument("key_id", help="the key's id, as asherah_status --json shows it")
        parser.add_argument("created", nargs="?", type=int, help="its creation time in Unix seconds")
        parser.add_argument("--latest", action="store_true", help="the newest key of this id, none from the future")
        parser.add_argument("--no-input", action="store_false", dest="interactive", help="do not ask for confirmation")

    def run(self, outcome: Outcome, **options: Any) -> None:
        """Revoke."""
        key_id, created = options["key_id"], options["created"]
        if (created is None) != options["latest"]:
            raise CommandError("Give either the key's creation time or --latest.", returncode=USAGE)
        preview = revoke(key_id, created, dry_run=True)
        if not options["dry_run"] and preview.changed and options["interactive"] and sys.stdin.isatty():
            self._confirm(f"Revoke {preview.meta}, the key of {preview.partitions.total} partitions? [y/N] ")
        report = preview if options["dry_run"] else revoke(key_id, preview.meta.created)
        outcome.summary = {"revoked": report.changed, "partitions": report.partitions.total}
        outcome.items = [
            {"key_id": report.meta.key_id, "created": report.meta.created, "partitions": report.partitions}
        ]
        verb = "Would revoke" if options["dry_run"] else "Revoked"
        outcome.say(f"{verb} {report.meta}." if report.changed else f"{report.meta} was revoked already.")
        more = f" and {report.partitions.unlisted} more" if report.partitions.unlisted else ""
        outcome.say(f"Partitions affected: {', '.join(report.partitions) or 'none'}{more}.")
        outcome.say("New keys are made automatically; to make them now, run: manage.py asherah_rotate --expired")
        outcome.say("To move data off the revoked key, run: manage.py asherah_reencrypt")

    def _confirm(self, question: str) -> None:
        # Standard output may be JSON that another program reads.
        self.stderr.write(question, self.style.WARNING, ending="")
        self.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was revoked.", returncode=USAGE)
