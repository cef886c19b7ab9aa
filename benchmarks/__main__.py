"""``python -m benchmarks``: measure everything, and write ``results.json``, a page of tables and the plots."""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.environments import HERE
from benchmarks.suites import lifecycle, memory, partitions, rows, sharing, start, tables, values

SUITES = {
    "values": values.measure,
    "sharing": sharing.measure,
    "tables": tables.measure,
    "rows": rows.measure,
    "start": start.measure,
    "partitions": partitions.measure,
    "new partitions": partitions.measure_new,
    "lifecycle": lifecycle.measure,
    "memory": memory.measure,
}


def main() -> None:
    """Run the suites that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=SUITES, help="only this suite; may be repeated")
    parser.add_argument(
        "--quick", action="store_true", help="only check that everything runs; the figures are not for quoting"
    )
    parser.add_argument("--report", action="store_true", help="measure nothing; write the page and the plots again")
    options = parser.parse_args()
    file = HERE / ("quick.json" if options.quick else "results.json")
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for name in [] if options.report else options.only or SUITES:
        print(f"measuring {name} …", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            results[name] = SUITES[name](Path(folder), quick=options.quick)
        results["machine"] = _machine()
        file.write_text(json.dumps(results, indent=1) + "\n")
    if options.quick:
        print(report.page(results))
    else:
        report.write(results)


def _machine() -> dict[str, str]:
    import cryptography
    import django
    import msgspec

    return {
        "Python": platform.python_version(),
        "Django": django.get_version(),
        "cryptography": cryptography.__version__,
        "msgspec": msgspec.__version__,
        "processor": f"{os.cpu_count()} cores, {platform.machine()}",
    }


if __name__ == "__main__":
    main()
