"""The load test: everything that may happen to keys, at once, for ten minutes; and then nothing may be lost.

Processes write and read encrypted rows through Django on a MariaDB server of the test's own, with a moto server for
each region behind a proxy. A conductor rotates, re-encrypts, revokes and re-wraps, lets regions fail, sets clocks
wrong, and kills writers and the database server, in an order that the printed seed decides. In the end a fresh process
reads every write that was confirmed. ``--seed`` gives the same deeds again, though not at the very same moments.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import random
import subprocess
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.soak_server import DatabaseServer  # noqa: E402
from tests.faults.proxy import Proxies  # noqa: E402
from tests.moto_servers import moto_region  # noqa: E402

REGIONS = ("us-west-2", "us-east-1", "eu-central-1")
TIMEOUT = 3
"""Seconds for a KMS to answer. Every stall takes it once per region."""

REVOKE_CHECK_INTERVAL = 2


def main() -> int:
    """Load, judge, print a table; return the exit code."""
    arguments = _arguments()
    print(f"seed {arguments.seed}, {arguments.minutes:g} minutes, {arguments.processes} processes", flush=True)
    with tempfile.TemporaryDirectory(prefix="asherah-soak-") as name, ExitStack() as stack:
        folder = Path(name)
        for each in ("journals", "logs"):
            (folder / each).mkdir()
        server = DatabaseServer(folder / "database")
        stack.callback(server.stop)
        proxies = Proxies([stack.enter_context(moto_region(region)) for region in REGIONS])
        os.environ |= _environment(server, proxies)
        conductor = stack.enter_context(_loaded(folder, server, proxies, arguments))
        judged = subprocess.run(
            [sys.executable, "-m", "scripts.soak_judge", name], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
        )
    return _tell(json.loads(judged.stdout), conductor)


def _arguments() -> Namespace:
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    return parser.parse_args()


def _environment(server: DatabaseServer, proxies: Proxies) -> dict[str, str]:
    options = {"endpoint_urls": proxies.urls, "read_timeout": TIMEOUT, "connect_timeout": TIMEOUT}
    asherah = {"KMS": "aws", "KMS_OPTIONS": options, "REVOKE_CHECK_INTERVAL": REVOKE_CHECK_INTERVAL, **proxies.options}
    return {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "DATABASE_URL": server.url,
        "DJANGO_SETTINGS_MODULE": "tests.faults.settings",
        "ASHERAH_FAULTS": json.dumps(asherah),
        "PYTHONPATH": str(ROOT),
    }


@contextmanager
def _loaded(folder: Path, server: DatabaseServer, proxies: Proxies, arguments: Namespace) -> Iterator[Any]:
    """Run the load, and yield its conductor once all is still again."""
    import django

    logging.basicConfig(level=logging.INFO, filename=folder / "logs" / "conductor")
    django.setup()
    import_module("django.core.management").call_command("migrate", run_syncdb=True, verbosity=0)
    deeds = import_module("scripts.soak_deeds")  # It needs Django, which needs the server's address.
    chance = random.Random(arguments.seed)
    with (folder / "clocks").open("w+b") as file:
        file.write(bytes(8 * arguments.processes))
        file.flush()
        clocks = mmap.mmap(file.fileno(), 0)
    writers = deeds.Writers(folder, arguments.processes, random.Random(arguments.seed + 1))
    conductor = deeds.Conductor(chance, writers, server, proxies, clocks)
    try:
        conductor.run(arguments.minutes * 60)
    finally:
        writers.stop()
    conductor.finish()
    yield conductor


def _tell(judged: dict[str, Any], conductor: Any) -> int:
    rows = [*judged["counts"].items(), *sorted(conductor.done.items())]
    rows += [(f"errors of requests: {name}", count) for name, count in sorted(judged["errors"].items())]
    rows += [(f"errors of deeds: {name}", count) for name, count in sorted(conductor.errors.items())]
    rows += [("lost, unreadable or in clear", len(judged["wrong"]))]
    for name, count in rows:
        print(f"{count:>9,}  {name}")
    for what in judged["wrong"][:20]:
        print(what)
    return 1 if judged["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
