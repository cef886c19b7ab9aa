"""Run the suites of the Django that is installed with encrypted fields in their models.

Whatever fails must be in the record for this version of Django, under the reason why it is refused, with the error that
this reason gives; whatever is in the record must fail. Nothing of Django is kept in this repository: its source
distribution comes from the package index. ``--record`` renews the lists of tests in the record; its reasons are written
by hand, and a failure that has none of their errors is left out.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import django

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.suites_labels import KINDS, LABELS  # noqa: E402
from scripts.suites_source import fetch_suites  # noqa: E402
from scripts.suites_verdict import Outcome, find_problems, read_record  # noqa: E402

RECORD = ROOT / "scripts" / f"suites_refused_{'_'.join(map(str, django.VERSION[:2]))}.toml"
TIMEOUT = 600
"""Seconds for the suite of one label."""


def main() -> int:
    """Run what is asked for; return the exit code."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("labels", nargs="*", help="suites of Django; by default, all that are listed")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--record", action="store_true", help="renew the lists of tests in the record")
    arguments = parser.parse_args()
    labels = arguments.labels or LABELS
    outcomes = run(labels, fetch_suites(ROOT / ".tox"), arguments.processes)
    if arguments.record:
        _record({test: error for outcome in outcomes.values() if outcome for test, error in outcome.failed.items()})
    return _report(outcomes)


def run(labels: list[str], suites: Path, processes: int) -> dict[str, Outcome | None]:
    """Return what became of each label; None if its suite ended without saying so."""
    with tempfile.TemporaryDirectory(prefix="django-suites-") as name, ThreadPoolExecutor(processes) as pool:
        found = pool.map(lambda label: _run(label, suites, Path(name)), labels)
        return dict(zip(labels, found, strict=True))


def _run(label: str, suites: Path, folder: Path) -> Outcome | None:
    file, log = folder / f"{label}.json", folder / f"{label}.log"
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "DJANGO_SUITES_OUTCOME": str(file),
        "DJANGO_SUITES_KINDS": " ".join(KINDS),
    }
    command = [sys.executable, "runtests.py", "--settings=scripts.suites_settings", "--parallel=1", label]
    start = time.monotonic()
    with log.open("w") as output:
        subprocess.run(command, cwd=suites, env=environment, stdout=output, stderr=output, check=False, timeout=TIMEOUT)
    if not file.exists():
        print(f"{label}: no outcome\n{log.read_text()[-3000:]}", flush=True)
        return None
    found = json.loads(file.read_text())
    outcome = Outcome(frozenset(found["ids"]), found["failed"], found["swapped"].get(label, 0))
    seconds = time.monotonic() - start
    print(
        f"{label}: {len(outcome.ids)} tests, {outcome.swapped} fields swapped, {len(outcome.failed)} failed, "
        f"{seconds:.0f} s",
        flush=True,
    )
    return outcome


def _report(outcomes: dict[str, Outcome | None]) -> int:
    ran = [outcome for outcome in outcomes.values() if outcome]
    problems = list(find_problems(outcomes, read_record(RECORD)))
    tests, failed = sum(len(each.ids) for each in ran), sum(len(each.failed) for each in ran)
    print(f"\nDjango {django.__version__}: {tests} tests, {failed} refused")
    for problem in problems:
        print(problem)
    print(f"{len(problems)} not as recorded in {RECORD.name}" if problems else "All as recorded.")
    return 1 if problems else 0


def _record(failed: dict[str, str]) -> None:
    """Write the tests that failed under the first reason whose error they have; keep all else as it is written."""
    text = RECORD.read_text()
    left = dict(failed)

    def renewed(match: re.Match[str]) -> str:
        error = re.compile(match["error"], re.DOTALL)
        tests = sorted(test for test in left if error.search(f"{test}: {left[test]}"))
        for test in tests:
            del left[test]
        return match["head"] + "tests = [\n" + "".join(f'  "{test}",\n' for test in tests) + "]\n"

    RECORD.write_text(re.sub(r"(?P<head>error = '''(?P<error>.*)'''\n)tests = \[(?s:.*?)\]\n", renewed, text))


if __name__ == "__main__":
    sys.exit(main())
