"""Processes that race for the first keys of an empty table.

Run as ``python -m tests.faults.race PROCESSES THREADS PARTITIONS``. Every process is forked from one that has opened no
key, and starts its threads at the moment in which all are ready. Each thread encrypts in every partition and reads back
what it wrote. Prints ``[partition, plaintext, record]`` of all of them as JSON.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import threading
from typing import Any

import django

django.setup()

from django.conf import settings  # noqa: E402
from django.db import connections  # noqa: E402

from django_asherah.envelope.session import SessionFactory  # noqa: E402
from django_asherah.kms.aws import AwsKMS  # noqa: E402
from django_asherah.metastores.database import DatabaseMetastore  # noqa: E402

NOON = 1_795_521_600.0
"""The one moment in which everything happens: were a minute to end meanwhile, two keys would be right."""


def make_factory() -> SessionFactory:
    """Return an engine over the settings' regions and the default database."""
    conf = settings.ASHERAH
    kms = AwsKMS(conf["REGIONS"], conf["PREFERRED_REGION"], **conf["KMS_OPTIONS"])
    return SessionFactory(conf["SERVICE"], conf["PRODUCT"], DatabaseMetastore("default"), kms, clock=lambda: NOON)


def main(processes: int, threads: int, partitions: int) -> None:
    """Race, and print what was written."""
    connections.close_all()
    context: Any = multiprocessing.get_context("fork")
    ready, results = context.Barrier(processes), context.SimpleQueue()
    racers = [
        context.Process(target=race, args=(number, threads, partitions, ready, results)) for number in range(processes)
    ]
    for racer in racers:
        racer.start()
    written = [line for _ in racers for line in results.get()]
    for racer in racers:
        racer.join()
    print(json.dumps(written))


def race(process: int, threads: int, partitions: int, ready: Any, results: Any) -> None:
    """Encrypt in every partition from every thread; report what was written, or the error."""
    factory = make_factory()
    written: list[Any] = []
    begin = threading.Barrier(threads, action=ready.wait)

    def work(thread: int) -> None:
        begin.wait()
        try:
            for number in range(partitions):
                name = f"p{(number + thread) % partitions}"
                text = f"{process}/{thread}/{name}"
                record = factory.get_session(name).encrypt(text.encode())
                written.append([name, text, record])
                assert factory.get_session(name).decrypt(record) == text.encode()
        except Exception as exc:
            written.append(["error", f"{type(exc).__name__}: {exc}", ""])
        finally:
            connections.close_all()

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    results.put(written)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
