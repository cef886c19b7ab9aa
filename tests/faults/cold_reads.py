"""Measure what a cold read costs with a healthy, a refused and a stalled preferred region.

Run it with ``python -m tests.faults.cold_reads``. Cold means that the process has opened no key. The KMS has its
default timeouts; both regions are moto servers on this machine, so what is measured is what waiting adds.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import boto3

from django_asherah.envelope.session import SessionFactory
from django_asherah.kms.aws import AwsKMS
from django_asherah.metastores.memory import MemoryMetastore
from tests.faults.proxy import REFUSED, STALLED, Fault, Proxies
from tests.moto_servers import ACCESS, moto_region

ROUNDS = 5
KEYS = 10


def main() -> None:
    """Print one line a condition."""
    logging.getLogger("django_asherah").setLevel(logging.ERROR)
    print(f"Milliseconds for reads under {KEYS} system keys, median of {ROUNDS} processes' worth of cold reads")
    print(f"{'preferred region':<18}{'first read':>12}{'the other 9, each':>20}")
    with two_regions() as proxies:
        metastore = MemoryMetastore()
        records = write(metastore, proxies)
        for name, fault in {"healthy": None, "refused": REFUSED, "stalled": STALLED}.items():
            times = [read_cold(metastore, proxies, records, fault) for _ in range(ROUNDS)]
            first = statistics.median(each[0] for each in times)
            others = statistics.median(sum(each[1:]) / len(each[1:]) for each in times)
            print(f"{name:<18}{first * 1000:>12.1f}{others * 1000:>20.1f}", flush=True)


@contextmanager
def two_regions() -> Iterator[Proxies]:
    """Run two KMS regions."""
    with moto_region("us-west-2") as west, moto_region("us-east-1") as east:
        proxies = Proxies([west, east])
        yield proxies
        proxies.close()


def new_process(metastore: MemoryMetastore, proxies: Proxies) -> SessionFactory:
    """Return a factory that has opened no key, over a KMS that knows of no failure."""
    kms = AwsKMS(
        {region: proxy.arn for region, proxy in proxies.by_region.items()},
        proxies.regions[0],
        endpoint_urls=proxies.urls,
        session=boto3.Session(**ACCESS),
    )
    for region in proxies.regions:
        kms.check_region(region)  # boto3 loads its models and connects: that is start-up, not reading.
    return SessionFactory("bench", "faults", metastore, kms)


def write(metastore: MemoryMetastore, proxies: Proxies) -> list[str]:
    """Return records, each under a system key of its own."""
    factory = new_process(metastore, proxies)
    session = factory.get_session("default")
    records = []
    for _ in range(KEYS):
        factory.system_keys.rotate(factory.system_key_id)
        factory.intermediate_keys.rotate(session.partition.intermediate_key_id)
        records.append(session.encrypt(b"a text"))
    return records


def read_cold(metastore: MemoryMetastore, proxies: Proxies, records: list[str], fault: Fault | None) -> list[float]:
    """Return the seconds that each read took."""
    session = new_process(metastore, proxies).get_session("default")
    with proxies.broken([proxies.regions[0]] if fault else [], fault or REFUSED):
        times = []
        for record in records:
            begun = time.perf_counter()
            session.decrypt(record)
            times.append(time.perf_counter() - begun)
    return times


if __name__ == "__main__":
    main()
