"""One process of the application in the load test: ``python -m scripts.soak_writer FOLDER NUMBER SEED``.

It creates, updates and reads rows of its own until it is told to end by SIGTERM, by a clock that the conductor sets.
"""

from __future__ import annotations

import logging
import mmap
import random
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django

django.setup()

from django.core.exceptions import ObjectDoesNotExist  # noqa: E402
from django.db import connection  # noqa: E402

from django_asherah import engine  # noqa: E402
from django_asherah.exceptions import DecryptionError, KeyNotFoundError  # noqa: E402
from scripts.soak_journal import CANARY, Journal, hash_of  # noqa: E402
from tests.testapp.models import Compact, Note  # noqa: E402
from tests.testapp.tenants import Member  # noqa: E402

MOST_ROWS, TENANTS = 300, 5
PAUSE, PAUSE_AFTER_ERROR = 0.01, 0.2
TABLES: dict[str, tuple[Any, str]] = {
    "note": (Note, "body"),
    "compact": (Compact, "body"),
    "member": (Member, "secret"),
}


class Writer:
    """Writes what it journals, and reads it again."""

    def __init__(self, journal: Journal, number: int, seed: int) -> None:
        self._journal = journal
        self._random = random.Random(seed)
        self._name = f"{number}-{seed}"
        self._count = 0

    def step(self) -> None:
        """Do one thing; an error is journalled."""
        places = list(self._journal.allowed)
        choices: list[Callable[[], None]] = [self._update, self._read, self._read] if places else []
        if len(places) < MOST_ROWS:
            choices.append(self._create)
        try:
            self._random.choice(choices)()
        except Exception as exc:
            self._journal.write("error", type(exc).__name__)
            logging.getLogger("soak").warning("%s: %s", type(exc).__name__, exc)
            connection.close()
            time.sleep(PAUSE_AFTER_ERROR)

    def _create(self) -> None:
        table, text = self._random.choice(list(TABLES)), self._text()
        model, field = TABLES[table]
        row = model(**{field: text})
        if isinstance(row, Member):
            row.tenant, row.name = str(self._random.randrange(TENANTS)), f"{self._name}/{self._count}"
        row.save()
        self._journal.write("done", table, row.pk, hash_of(text))

    def _update(self) -> None:
        (table, pk), text = self._random.choice(list(self._journal.allowed)), self._text()
        model, field = TABLES[table]
        self._journal.write("try", table, pk, hash_of(text))
        row = model.objects.get(pk=pk)
        setattr(row, field, text)
        row.save()
        self._journal.write("done", table, pk, hash_of(text))

    def _read(self) -> None:
        place = self._random.choice(list(self._journal.allowed))
        (table, pk), allowed = place, self._journal.allowed[place]
        model, field = TABLES[table]
        try:
            value = getattr(model.objects.get(pk=pk), field)
        except (DecryptionError, KeyNotFoundError, ObjectDoesNotExist) as exc:
            self._journal.write("wrong", f"{table} {pk}: {type(exc).__name__}: {exc}")
            raise
        if hash_of(value) not in allowed:
            self._journal.write("wrong", f"{table} {pk} holds another value than the one that was confirmed")
        self._journal.write("read", 1)

    def _text(self) -> str:
        self._count += 1
        return f"{CANARY}{self._random.randbytes(self._random.randrange(1, 100)).hex()}/{self._name}/{self._count}"


def main(folder: str, number: int, seed: int) -> None:
    """Write until the end."""
    logging.basicConfig(level=logging.INFO)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with (Path(folder) / "clocks").open("rb") as file:
        clocks = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    engine.use_clock(lambda: time.time() + float(struct.unpack_from("d", clocks, 8 * number)[0]))
    journal = Journal(Path(folder) / "journals" / str(number))
    journal.open()
    writer = Writer(journal, number, seed)
    while not ended.wait(PAUSE):
        writer.step()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
