"""Work in the clinic's project, each piece run in its own process: ``python -m benchmarks.tasks NAME …``."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

BATCH = 200
"""What ``asherah_reencrypt`` rewrites in one transaction by default."""


def nothing() -> None:
    """Start the project, nothing else."""


def start_app() -> None:
    """Start Django without a single value being read."""
    _set_up()


def first_value() -> str:
    """Start Django and read the first encrypted value."""
    _set_up()
    from clinic.models import Patient

    return str(len(Patient.objects.values_list("ssn", "clinic_id").order_by("pk")[0][0]))


def first_plain_value() -> str:
    """Start Django and read the first value that is not encrypted."""
    _set_up()
    from clinic.models import Patient

    return str(len(Patient.objects.values_list("name", flat=True).order_by("pk")[0]))


def fill(rows: str) -> int:
    """Make the table hold ``rows`` patients of one clinic: the first thousand sealed, the others copies of them."""
    _set_up()
    from clinic.models import Clinic, Patient
    from django.db import connection

    Patient.objects.all().delete()
    clinic, _ = Clinic.objects.get_or_create(name="North")
    seeds = [Patient(clinic=clinic, name=f"p{place}", ssn="x" * 100, record={"n": place}) for place in range(1000)]
    Patient.objects.bulk_create(seeds)
    have = 1000
    with connection.cursor() as cursor:
        while have < int(rows):
            more = min(have, int(rows) - have)
            cursor.execute(
                "INSERT INTO clinic_patient (clinic_id, name, ssn, record) "
                f"SELECT clinic_id, name, ssn, record FROM clinic_patient ORDER BY id LIMIT {more}"
            )
            have += more
    return Patient.objects.count()


def rewrite_alone() -> int:
    """Decrypt, encrypt and update every value in batches, without what makes that safe: re-encryption's floor."""
    _set_up()
    from clinic.models import Clinic, Patient
    from django.db import connection, transaction

    from django_asherah.engine import get_session

    session, done, after = get_session(f"clinic-{Clinic.objects.get().pk}"), 0, 0
    while True:
        with connection.cursor() as cursor:
            cursor.execute("SELECT id, ssn FROM clinic_patient WHERE id > %s ORDER BY id LIMIT %s", [after, BATCH])
            rows = cursor.fetchall()
        if not rows:
            return done
        new = [(session.encrypt(session.decrypt(raw)), pk) for pk, raw in rows]
        with transaction.atomic(), connection.cursor() as cursor:
            _update(connection.vendor, cursor, Patient._meta.db_table, new)
        done, after = done + len(rows), rows[-1][0]


def _update(vendor: str, cursor: Any, table: str, new: list[tuple[str, int]]) -> None:
    if vendor == "postgresql":
        values = ", ".join(["(%s, %s::bigint)"] * len(new))
        flat = [part for pair in new for part in pair]
        cursor.execute(
            f"UPDATE {table} AS t SET ssn = v.ssn FROM (VALUES {values}) AS v (ssn, id) WHERE t.id = v.id", flat
        )
    else:
        cursor.executemany(f"UPDATE {table} SET ssn = %s WHERE id = %s", new)


def partitions(count: str, values: str) -> dict[str, float]:
    """Encrypt and decrypt ``values`` values spread over ``count`` partitions, with no key cached and then with all."""
    _set_up()
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from django_asherah import engine

    names = [f"tenant-{place % int(count)}" for place in range(int(values))]
    found: dict[str, float] = {}

    def run(label: str, work: Any) -> Any:
        start = time.perf_counter()
        with CaptureQueriesContext(connection) as queries:
            result = work()
        found[label] = time.perf_counter() - start
        found[f"{label} queries"] = len(queries)
        return result

    def encrypt() -> list[tuple[str, str]]:
        return [(name, engine.get_session(name).encrypt(b"x" * 100)) for name in names]

    def decrypt() -> None:
        for name, record in records:
            engine.get_session(name).decrypt(record)

    def load() -> None:
        metas = (engine.get_session(name).read(record).key.parent_key_meta for name, record in records)
        engine.get_factory().load_keys(metas)

    run("encrypt, keys to be made", encrypt)
    records = run("encrypt, keys cached", encrypt)
    engine.reset()
    run("decrypt, keys to be loaded", decrypt)
    engine.reset()
    run("decrypt, keys loaded together", lambda: (load(), decrypt()))
    run("decrypt, keys cached", decrypt)
    return found


def new_partitions(count: str) -> dict[str, float]:
    """Make the keys of ``count`` new partitions one by one, and of as many others together, between the two halves."""
    _set_up()
    from django_asherah import engine

    factory, half = engine.get_factory(), int(count) // 2
    factory.get_session("the first").newest_key()
    seconds = dict.fromkeys(("one by one", "together"), 0.0)

    def run(label: str, work: Any) -> None:
        start = time.perf_counter()
        work()
        seconds[label] += time.perf_counter() - start

    def one_by_one(half_name: str) -> None:
        for number in range(half):
            factory.get_session(f"{half_name}-{number}").newest_key()

    run("one by one", lambda: one_by_one("earlier"))
    run("together", lambda: factory.current_keys(f"together-{number}" for number in range(2 * half)))
    run("one by one", lambda: one_by_one("later"))
    return seconds


def _set_up() -> None:
    import django

    django.setup()


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
