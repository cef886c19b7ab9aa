"""What every command of this app shares."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseFailure
from django.test.utils import override_settings
from tqdm import tqdm

from django_asherah.exceptions import AsherahError
from django_asherah.lifecycle.columns import UnknownColumnError
from django_asherah.lifecycle.progress import Progress

WRONG, USAGE, INTERRUPTED = 1, 2, 130
EXIT_CODES = "Exit codes: 0 done, 1 something is wrong with keys or data, 2 wrong usage, 130 interrupted."


class Outcome:
    """What a command found or did, for people and for machines.

    With ``--json`` it is one object on standard output::

        {"command": str, "ok": bool, "dry_run": bool, "summary": {…}, "items": [{…}],
         "problems": [{"at": str, "reason": str}]}

    ``docs/reference/commands.schema.json`` is the exact schema.
    """

    def __init__(self) -> None:
        self.summary: dict[str, Any] = {}
        self.items: list[dict[str, Any]] = []
        self.problems: list[tuple[str, str]] = []
        self.lines: list[str] = []

    def say(self, line: str = "") -> None:
        """Add a line for people."""
        self.lines.append(line)

    def problem(self, at: str, reason: str) -> None:
        """Add something that is wrong; the command exits with 1."""
        self.problems.append((at, reason))


class AsherahCommand(BaseCommand):
    """Turns an :class:`Outcome` into output and an exit code."""

    requires_system_checks = ()
    writes = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options that all commands have."""
        parser.add_argument("--json", action="store_true", help="print one JSON object, for machines")
        parser.add_argument(
            "--database", metavar="ALIAS", help="the database of the key table; by default ASHERAH['DATABASE']"
        )
        if self.writes:
            parser.add_argument("--dry-run", action="store_true", help="show what would be done, and do nothing")

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Return the parser, with the exit codes at the end of its help."""
        return super().create_parser(prog_name, subcommand, epilog=EXIT_CODES, **kwargs)

    def run(self, outcome: Outcome, **options: Any) -> None:
        """Do the work and fill ``outcome``."""
        raise NotImplementedError

    def handle(self, *args: Any, **options: Any) -> None:
        """Run, print, and exit with 0, 1 or 2."""
        outcome = Outcome()
        try:
            with _key_database(options["database"]):
                self.run(outcome, **options)
        except (UnknownColumnError, ImproperlyConfigured) as exc:
            raise CommandError(str(exc), returncode=USAGE) from exc
        except (AsherahError, DatabaseFailure, ConnectionError) as exc:
            # A database's message may hold values after its first line.
            outcome.problem(type(exc).__name__, str(exc).partition("\n")[0])
        except KeyboardInterrupt:
            self.stderr.write("Interrupted. Nothing is lost; run the command again to resume.")
            sys.exit(INTERRUPTED)
        self._print(outcome, options)
        if outcome.problems:
            sys.exit(WRONG)

    @contextmanager
    def progress(self, unit: str, total: Callable[[], int]) -> Iterator[Progress]:
        """Give a function that advances a progress bar. Only on a terminal is it shown, and ``total`` called."""
        shown = sys.stderr.isatty()
        number = total() if shown else None
        with tqdm(unit=unit, total=number, disable=not shown, leave=False, file=sys.stderr, unit_scale=True) as bar:
            yield bar.update

    def _print(self, outcome: Outcome, options: dict[str, Any]) -> None:
        if options["json"]:
            self.stdout.write(json.dumps(self._document(outcome, options), ensure_ascii=False))
            return
        for line in outcome.lines:
            self.stdout.write(line)
        for at, reason in outcome.problems:
            self.stderr.write(self.style.ERROR(f"{at}: {reason}"))

    def _document(self, outcome: Outcome, options: dict[str, Any]) -> dict[str, Any]:
        return {
            "command": type(self).__module__.rpartition(".")[2],
            "ok": not outcome.problems,
            "dry_run": bool(options.get("dry_run")),
            "summary": outcome.summary,
            "items": outcome.items,
            "problems": [{"at": at, "reason": reason} for at, reason in outcome.problems],
        }


def positive(text: str) -> int:
    """Read an option that is a whole number above 0."""
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


@contextmanager
def _key_database(alias: str | None) -> Iterator[None]:
    if alias is None:
        yield
        return
    from django.conf import settings

    with override_settings(ASHERAH={**settings.ASHERAH, "DATABASE": alias}):
        yield


def table(rows: list[list[str]]) -> Iterator[str]:
    """Yield lines with the columns of ``rows`` aligned; the first row is the heading."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
