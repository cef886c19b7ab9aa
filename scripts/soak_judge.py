"""Judges the load test from a process that has seen nothing of it: ``python -m scripts.soak_judge FOLDER``.

Prints JSON: figures, and under ``wrong`` everything that was lost, is unreadable or stands somewhere in clear.
"""

from __future__ import annotations

import json
import mmap
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import django

django.setup()

from django_asherah import lifecycle  # noqa: E402
from django_asherah.exceptions import AsherahError  # noqa: E402
from django_asherah.models import EncryptionKey  # noqa: E402
from scripts.soak_journal import CANARY, Journal, hash_of  # noqa: E402
from scripts.soak_writer import TABLES  # noqa: E402


def main(folder: Path) -> None:
    """Judge, print."""
    journals = [Journal(path) for path in sorted((folder / "journals").iterdir())]
    counts: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    wrong: list[str] = []
    for journal in journals:
        counts += journal.counts
        errors += journal.errors
        wrong += [*journal.wrong, *_unconfirmed(journal)]
    # The clocks were set ahead on purpose, and what was made then is reported as it should be.
    future = {str(key.meta) for key in lifecycle.list_keys() if key.is_from_future}
    wrong += [str(problem) for problem in lifecycle.verify_keys().problems if problem[0] not in future]
    wrong += [str(bad) for bad in lifecycle.verify_data().bad]
    wrong += [f"{path} holds plaintext" for path in folder.rglob("*") if _holds_plaintext(path)]
    counts["rows confirmed and read again"] = sum(len(journal.allowed) for journal in journals)
    counts["keys"] = EncryptionKey.objects.count()
    counts["of them from the future"] = len(future)
    print(json.dumps({"counts": counts, "errors": errors, "wrong": wrong}))


def _unconfirmed(journal: Journal) -> Iterator[str]:
    """Yield what does not stand as it was confirmed."""
    for (table, pk), allowed in journal.allowed.items():
        model, field = TABLES[table]
        try:
            value = getattr(model.objects.get(pk=pk), field)
        except (AsherahError, model.DoesNotExist) as exc:
            yield f"{table} {pk}: {type(exc).__name__}: {exc}"
            continue
        if hash_of(value) not in allowed:
            yield f"{table} {pk} holds another value than the one that was confirmed"


def _holds_plaintext(path: Path) -> bool:
    """Tell whether a file holds the canary: a table, a log of the database server's or of a process."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(CANARY.encode()) >= 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
