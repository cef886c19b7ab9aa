"""``manage.py asherah_verify``."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db import connections

from django_asherah.lifecycle import (
    Column,
    DataReport,
    count_values,
    encrypted_columns,
    list_keys,
    verify_data,
    verify_keys,
)
from django_asherah.lifecycle.bad_values import BadValue
from django_asherah.management.base import USAGE, AsherahCommand, Outcome, positive


class Command(AsherahCommand):
    """Proves that keys and data are safe."""

    help = (
        "Prove that the keys are safe: every system key opens in each region separately, every master key is enabled, "
        "every intermediate key opens. With --data, prove also that every encrypted value opens, under the partition "
        "that its row says."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add what to verify."""
        super().add_arguments(parser)
        parser.add_argument(
            "--data",
            nargs="*",
            metavar="app.Model[.field]",
            help="open every encrypted value, or those of the models and fields named",
        )
        parser.add_argument(
            "--data-database", metavar="ALIAS", help="the database of the data; by default, the routers decide"
        )
        parser.add_argument("--sample", type=positive, metavar="N", help="only N random rows of each column")
        parser.add_argument(
            "--parallel", type=positive, default=1, metavar="N", help="divide the data among N processes"
        )

    def run(self, outcome: Outcome, **options: Any) -> None:
        """Verify."""
        with self.progress("key", lambda: list_keys().total()) as progress:
            keys = verify_keys(progress)
        outcome.summary = {"system_keys": keys.system_keys, "intermediate_keys": keys.intermediate_keys}
        for at, reason in keys.problems:
            outcome.problem(at, reason)
        if keys.problems.unlisted:
            outcome.problem("keys", f"{keys.problems.unlisted} more problems")
        outcome.say(f"Opened {keys.system_keys} system keys and {keys.intermediate_keys} intermediate keys.")
        if not keys.system_keys and not keys.problems and options["data"] is None:
            outcome.problem("keys", "there are none, so nothing was proven")
        if options["data"] is not None:
            self._verify_data(outcome, options)

    def _verify_data(self, outcome: Outcome, options: dict[str, Any]) -> None:
        names, alias, sample = options["data"], options["data_database"], options["sample"]
        if options["parallel"] > 1:
            _refuse_memory_database(encrypted_columns(names, alias))
        with self.progress("value", lambda: count_values(names, alias, sample)) as progress:
            report = verify_data(names, alias=alias, sample=sample, processes=options["parallel"], progress=progress)
        _add(outcome, report)


def _refuse_memory_database(columns: list[Column]) -> None:
    for connection in [connections[column.alias] for column in columns]:
        if connection.vendor == "sqlite" and getattr(connection, "is_in_memory_db", bool)():
            raise CommandError("A database in memory can't be shared with other processes.", returncode=USAGE)


def _add(outcome: Outcome, report: DataReport) -> None:
    outcome.summary |= {
        "values": report.read,
        "opened": dict(report.columns),
        "bad": report.bad.total,
        "plaintext": dict(report.plaintext),
        "values_by_key": {str(meta): count for meta, count in sorted(report.keys.items(), key=str)},
        "values_by_newer_keys": report.keys.uncounted,
        "newer_keys_since": report.keys.uncounted_since,
        "values_by_system_key": {str(meta): count for meta, count in sorted(report.system_keys.items(), key=str)},
    }
    outcome.items = [_bad_value(bad) for bad in report.bad]
    for bad in report.bad:
        outcome.problem(f"{bad.column} pk={bad.pk}", bad.reason)
    if report.bad.unlisted:
        outcome.problem("data", f"{report.bad.unlisted} more bad values")
    if not report.read:
        outcome.problem("data", "no value was read, so nothing was proven")
    for column, count in report.columns.items():
        outcome.say(f"{column}: {count} values open.")
    for column, count in report.plaintext.items():
        outcome.say(f"{column}: {count} values are not encrypted yet.")
    for meta, count in sorted([*report.keys.items(), *report.system_keys.items()], key=str):
        outcome.say(f"Needed: {meta}, by {count} values.")
    if report.keys.uncounted:
        outcome.say(
            f"Needed: keys created at {report.keys.uncounted_since} and later that are not listed, by "
            f"{report.keys.uncounted} values. Older intermediate keys that are not listed are needed by none."
        )


def _bad_value(bad: BadValue) -> dict[str, str | None]:
    model, _, field = bad.column.rpartition(".")
    return {"model": model, "field": field, "pk": bad.pk, "reason": bad.reason, "key": bad.key or None}
