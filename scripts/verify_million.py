"""Verify and re-encrypt a table of a million values, and report how much memory that took.

    python scripts/verify_million.py [rows]

The figures are quoted in ``docs/how-to/verify.md``.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DISTINCT = 1000


def main(rows: int) -> None:
    """Fill a SQLite file and go through it."""
    with tempfile.TemporaryDirectory() as directory:
        sys.path.insert(0, str(ROOT))
        os.environ |= {"DATABASE_URL": f"sqlite:///{directory}/db.sqlite3", "DJANGO_SETTINGS_MODULE": "tests.settings"}
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", run_syncdb=True, verbosity=0)
        measured("fill", rows, lambda: fill(rows))
        from django_asherah.lifecycle import reencrypt, rotate, verify_data

        measured("verify", rows, lambda: verify_data(["testapp.Note.body"]).read)
        rotate()
        measured("re-encrypt", rows, lambda: reencrypt(["testapp.Note.body"]).rewritten.total())  # noqa: PLW0108 - it would run at once


def fill(rows: int) -> int:
    """Insert ``rows`` records of 100 bytes of text each, ``DISTINCT`` of which differ."""
    from django.db import connection, transaction

    from django_asherah.engine import get_session

    records = [get_session().encrypt(f"{number:0100}".encode()) for number in range(DISTINCT)]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO testapp_note (title, body, other_body) VALUES ('', %s, '')",
            [(records[number % DISTINCT],) for number in range(rows)],
        )
        return int(cursor.rowcount)


def measured(name: str, rows: int, work: Callable[[], int]) -> None:
    """Do ``work`` and print what it took."""
    began = time.perf_counter()
    done = work()
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    assert done == rows, f"{done} of {rows}"
    print(f"{name}: {rows} values, {rows / seconds:.0f} a second, the process never over {peak} MB", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
