"""``manage.py asherah_reencrypt``."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management.base import CommandError
from django.utils.module_loading import import_string

from django_asherah.lifecycle import count_values, reencrypt, split
from django_asherah.lifecycle.reencryption import Options
from django_asherah.lifecycle.swap import ROWS_PER_TRANSACTION
from django_asherah.management.base import USAGE, AsherahCommand, Outcome, positive

QUEUES = {
    "celery": ("django_asherah.tasks.enqueue", "pip install 'django-asherah[celery]'"),
    "django": ("django_asherah.django_tasks.enqueue", "Django 6.0 or newer"),
}


class Command(AsherahCommand):
    """Rewrites data under the newest keys."""

    help = (
        "Rewrite every value whose keys are not the newest, in a live table: a concurrent writer always wins. Safe to "
        "interrupt; when run again, it skips what is done."
    )
    writes = True

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add what to rewrite, and how."""
        super().add_arguments(parser)
        parser.add_argument("names", nargs="*", metavar="app.Model[.field]", help="only these models and fields")
        parser.add_argument("--all", action="store_true", help="also values that are already under the newest key")
        parser.add_argument(
            "--moved",
            action="store_true",
            help="also records of another partition of this service and product: seal them for the partition that "
            "their row, or the field, says now. For use after QuerySet.update() or SQL has moved rows to another "
            "tenant, or after a field's partition has changed. It trusts whoever can write the table: a record that "
            "somebody has put into another tenant's row becomes readable there. Without it such values are reported "
            "and left. If records are compact, the whole key table is read",
        )
        parser.add_argument(
            "--data-database", metavar="ALIAS", help="the database of the data; by default, the routers decide"
        )
        parser.add_argument(
            "--batch", type=positive, default=ROWS_PER_TRANSACTION, help="rows per transaction (default %(default)s)"
        )
        parser.add_argument("--rate", type=_rate, metavar="N", help="at most N rows per second")
        part = parser.add_mutually_exclusive_group()
        part.add_argument("--shard", type=_shard, default=(0, 1), metavar="K/N", help="the K-th of N parts of the rows")
        part.add_argument("--enqueue", action="store_true", help="let the workers of a task queue do it")
        parser.add_argument(
            "--shards", type=positive, default=4, metavar="N", help="tasks to enqueue (default %(default)s)"
        )
        parser.add_argument(
            "--via", choices=list(QUEUES), default="celery", help="which task queue (default %(default)s)"
        )

    def run(self, outcome: Outcome, **options: Any) -> None:
        """Re-encrypt, or enqueue tasks that do."""
        shard, shards = options["shard"]
        chosen = Options(
            all=options["all"],
            moved=options["moved"],
            shard=shard,
            shards=shards,
            rate=options["rate"],
            batch=options["batch"],
            dry_run=options["dry_run"],
        )
        if options["enqueue"]:
            _enqueue(outcome, chosen, options)
            return
        names, alias = options["names"], options["data_database"]
        with self.progress("value", lambda: count_values(names, alias) // shards) as progress:
            report = reencrypt(names, alias=alias, options=chosen, progress=progress)
        outcome.summary = {
            "rewritten": dict(report.rewritten),
            "moved": dict(report.moved),
            "current": dict(report.current),
            "conflicts": report.conflicts,
            "bad": report.bad.total,
        }
        for bad in report.bad:
            outcome.problem(f"{bad.column} pk={bad.pk}", bad.reason)
        verb = "would be rewritten" if options["dry_run"] else "rewritten"
        for column in sorted({*report.rewritten, *report.current}):
            outcome.say(f"{column}: {report.rewritten[column]} values {verb}, {report.current[column]} are current.")
            if report.moved[column]:
                outcome.say(f"{column}: {report.moved[column]} of these were another partition's.")


def _enqueue(outcome: Outcome, chosen: Options, options: dict[str, Any]) -> None:
    if options["database"] is not None:
        raise CommandError(
            "--enqueue can't be combined with --database: the workers use their own ASHERAH['DATABASE'].",
            returncode=USAGE,
        )
    path, need = QUEUES[options["via"]]
    try:
        enqueue = import_string(path)
    except ImportError as exc:
        raise CommandError(f"--via {options['via']} needs {need}: {exc}", returncode=USAGE) from exc
    shards = split(options["names"], shards=options["shards"], alias=options["data_database"], options=chosen)
    outcome.summary = {"enqueued": len(shards), "via": options["via"]}
    if options["dry_run"]:
        outcome.say(f"Would enqueue {len(shards)} tasks.")
        return
    outcome.items = [{"task": task} for task in enqueue(shards)]
    outcome.say(f"Enqueued {len(shards)} tasks. When they are done, run: manage.py asherah_verify --data")


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate < float("inf"):
        raise ArgumentTypeError(f"{text!r} is not a number above 0")
    return rate


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ArgumentTypeError(f"{text!r} is not K/N with K from 1 to N")
    return int(match[1]) - 1, int(match[2])
