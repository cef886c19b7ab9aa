"""Time the admin's pages over a table of 100,000 keys, in a test database.

    DATABASE_URL=postgres://… python scripts/admin_many_keys.py [keys]

The figures are quoted in ``docs/how-to/use-the-admin.md``.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIST = "/admin/django_asherah/encryptionkey/"
SYSTEM_KEYS = 10
QUARTER = 90 * 24 * 60 * 60
ROUNDS = 5


def main(count: int) -> None:
    """Fill a table and ask for each kind of page."""
    sys.path.insert(0, str(ROOT))
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django

    django.setup()
    from django.db import connection
    from django.test.utils import setup_test_environment

    setup_test_environment()
    connection.creation.create_test_db(verbosity=0)
    try:
        fill(count)
        time_pages()
    finally:
        connection.creation.destroy_test_db(str(connection.settings_dict["NAME"]), verbosity=0)


def fill(count: int) -> None:
    """Make ``count`` keys from ten quarters, in a tenth as many partitions."""
    from django.db import connection

    from django_asherah.models import EncryptionKey

    newest = int(time.time()) // 60 * 60 - QUARTER // 9
    rows = []
    for quarter in range(SYSTEM_KEYS):
        made = newest - quarter * QUARTER
        parent = {"KeyId": "_SK_suite_tests", "Created": made}
        rows.append(row("_SK_suite_tests", made))
        rows += [
            row(f"_IK_tenant-{number:05}_suite_tests", made + number % 1000 * 60, ParentKeyMeta=parent)
            for number in range(count // SYSTEM_KEYS - 1)
        ]
    EncryptionKey.objects.bulk_create(rows, batch_size=5000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE encryption_key" if connection.vendor == "mysql" else "ANALYZE encryption_key")


def row(key_id: str, created: int, **members: Any) -> Any:
    """Return a key's row, with a record of the usual length that holds no key."""
    from django_asherah.models import EncryptionKey

    record = {"Created": created, "Key": "A" * 80, **members}
    return EncryptionKey(key_id=key_id, created=datetime.fromtimestamp(created, UTC), key_record=record)


def time_pages() -> None:
    """Print how long each kind of page takes, and with how many queries."""
    from django.contrib.auth.models import User
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    from django_asherah.models import EncryptionKey

    client = Client()
    client.force_login(User.objects.create_superuser("grace"))
    newest = EncryptionKey.objects.order_by("-created")
    pages = {
        "the list": "",
        "its last page": f"?p={EncryptionKey.objects.count() // 50}",
        **{f"those that are {state}": f"?state={state}" for state in ("current", "superseded", "expired", "revoked")},
        "system keys": "?kind=system",
        "a region": "?region=us-west-2",
        "a search": "?q=00042",
        "a system key": f"{newest.filter(key_id__startswith='_SK_')[0].pk}/change/",
        "an intermediate key": f"{newest.filter(key_id__startswith='_IK_')[0].pk}/change/",
    }
    for name, query in pages.items():
        seconds = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            with CaptureQueriesContext(connection) as queries:
                assert client.get(LIST + query).status_code == 200
            seconds.append(time.perf_counter() - began)
        print(f"{name}: {median(seconds) * 1000:.0f} ms, {len(queries)} queries", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
