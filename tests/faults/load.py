"""Mixed load while keys are rotated, revoked and re-wrapped, and rows re-encrypted.

Run as ``python -m tests.faults.load``. Each of 4 processes × 4 threads creates, updates and reads rows of its own, and
adds to counters that all share. Another process does all that the lifecycle knows, over and over, until they are done.
They end after ``ASHERAH_LOAD_ROUNDS`` rounds of every thread (30), or after ``ASHERAH_LOAD_SECONDS`` if that is set.
Prints a JSON report; what went wrong is in its ``errors``.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import django

django.setup()

from django.db import connections, transaction  # noqa: E402
from django.test.utils import override_settings  # noqa: E402

from django_asherah import engine, lifecycle  # noqa: E402
from django_asherah.models import EncryptionKey  # noqa: E402
from tests.databases import as_asherah  # noqa: E402
from tests.testapp.models import Note  # noqa: E402

PROCESSES, THREADS, COUNTERS = 4, 4, 3
ROUNDS = int(os.environ.get("ASHERAH_LOAD_ROUNDS", "30"))
SECONDS = float(os.environ.get("ASHERAH_LOAD_SECONDS", "0"))


class Client:
    """One thread's requests, and what it was told that stands."""

    def __init__(self, seed: int, counters: list[int]) -> None:
        self.stands: dict[int, str] = {}
        self.added: Counter[int] = Counter()
        self.done: Counter[str] = Counter()
        self.errors: list[str] = []
        self._random = random.Random(seed)
        self._counters = counters

    def run(self) -> None:
        for number in self._rounds():
            if number < 20:  # The table need not grow for ever.
                self._try("create", self._create, number)
            self._try("update", self._update, number)
            self._try("read", self._read, number)
            self._try("add", self._add, number)
            self._try("read", self._read, number)

    def _rounds(self) -> Iterator[int]:
        end = time.monotonic() + SECONDS
        number = 0
        while time.monotonic() < end if SECONDS else number < ROUNDS:
            yield number
            number += 1

    def _try(self, name: str, request: Callable[[int], None], number: int) -> None:
        try:
            request(number)
            self.done[name] += 1
        except Exception as exc:
            self.errors.append(f"{name}: {type(exc).__name__}: {exc}")

    def _create(self, number: int) -> None:
        text = f"new {number}"
        self.stands[Note.objects.create(body=text, other_body="beside it").pk] = text

    def _update(self, number: int) -> None:
        pk = self._random.choice(list(self.stands))
        Note.objects.filter(pk=pk).update(body=f"changed {number}")
        self.stands[pk] = f"changed {number}"

    def _read(self, number: int) -> None:
        pk = self._random.choice(list(self.stands))
        found = Note.objects.get(pk=pk)
        if (found.body, found.other_body) != (self.stands[pk], "beside it"):
            raise AssertionError(f"{pk} is {found.body!r} and not {self.stands[pk]!r}")

    def _add(self, number: int) -> None:
        pk = self._random.choice(self._counters)
        with transaction.atomic():
            note = Note.objects.select_for_update().get(pk=pk)
            note.body = str(int(note.body or "") + 1)
            note.save(update_fields=["body"])
        self.added[pk] += 1


def serve(number: int, counters: list[int], results: Any) -> None:
    """Be one process of the application."""
    clients = [Client(number * THREADS + thread, counters) for thread in range(THREADS)]

    def work(client: Client) -> None:
        try:
            client.run()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put([(client.stands, client.added, client.done, client.errors) for client in clients])


def keep_house(done: Any, results: Any) -> None:
    """Do to the keys what operators do, round after round, until the others are done.

    A round is never left in the middle: its last work puts back the region that an earlier one takes away.
    """
    counts: Counter[str] = Counter()
    errors: list[str] = []
    while True:
        for name, work in HOUSEWORK.items():
            try:
                counts[name] += work()
            except Exception as exc:
                errors.append(f"{name}: {type(exc).__name__}: {exc}")
        if done.is_set():
            break
    counts["values that a writer had changed meanwhile"] = conflicts.total()
    results.put((counts, errors))


conflicts: Counter[str] = Counter()


def rotate() -> int:
    return len(lifecycle.rotate().intermediate_keys)


def revoke_intermediate_key() -> int:
    return lifecycle.revoke("_IK_default_suite_tests").changed


def revoke_system_key() -> int:
    return lifecycle.revoke("_SK_suite_tests").changed


def reencrypt() -> int:
    report = lifecycle.reencrypt(["testapp.Note"])
    if report.bad:
        raise AssertionError(report.bad)
    conflicts["testapp.Note"] += report.conflicts
    return report.rewritten.total()


def rewrap_without_a_region() -> int:
    settings = as_asherah()
    regions = dict(list(settings["REGIONS"].items())[:-1])
    options = settings["KMS_OPTIONS"]
    urls = {region: options["endpoint_urls"][region] for region in regions}
    fewer = as_asherah(REGIONS=regions, KMS_OPTIONS={**options, "endpoint_urls": urls})
    with override_settings(ASHERAH=fewer):
        return rewrap()


def rewrap() -> int:
    report = lifecycle.rewrap()
    if report.failed:
        raise AssertionError(report.failed)
    return len(report.rewrapped)


HOUSEWORK = {
    "rotated": rotate,
    "re-encrypted": reencrypt,
    "intermediate keys revoked": revoke_intermediate_key,
    "re-encrypted once more": reencrypt,
    "re-wrapped for fewer regions": rewrap_without_a_region,
    "system keys revoked": revoke_system_key,
    "re-wrapped for all": rewrap,
}


def main() -> None:
    """Load, judge, print."""
    counters = [Note.objects.create(body="0", other_body="").pk for _ in range(COUNTERS)]
    engine.reset()
    connections.close_all()
    context: Any = multiprocessing.get_context("fork")
    results, house_results, done = context.SimpleQueue(), context.SimpleQueue(), context.Event()
    servers = [context.Process(target=serve, args=(number, counters, results)) for number in range(PROCESSES)]
    house = context.Process(target=keep_house, args=(done, house_results))
    begun = time.monotonic()
    for process in (*servers, house):
        process.start()
    clients = [client for _ in servers for client in results.get()]
    took = time.monotonic() - begun
    done.set()
    housework, errors = house_results.get()
    for process in (*servers, house):
        process.join()
    print(json.dumps(judge(clients, counters) | {"seconds": round(took, 1), "housework": housework, "house": errors}))


def judge(clients: list[Any], counters: list[int]) -> dict[str, Any]:
    """Return what was done, and everything that does not stand as it was acknowledged."""
    stands: dict[int, str] = {}
    added: Counter[int] = Counter()
    requests: Counter[str] = Counter()
    errors: list[str] = []
    for mine, adds, did, wrong in clients:
        stands |= mine
        added += adds
        requests += did
        errors += wrong
    stands |= {pk: str(added[pk]) for pk in counters}
    found = dict(Note.objects.filter(pk__in=stands).values_list("pk", "body"))
    lost = [f"{pk} is {found.get(pk)!r} and not {text!r}" for pk, text in stands.items() if found.get(pk) != text]
    bad = lifecycle.verify_keys().problems + lifecycle.verify_data(["testapp.Note"]).bad
    return {
        "requests": requests,
        "rows": len(stands),
        "keys": EncryptionKey.objects.count(),
        "errors": errors,
        "lost": lost,
        "bad": [str(each) for each in bad],
    }


if __name__ == "__main__":
    main()
