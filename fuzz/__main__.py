"""``python -m fuzz TARGET [libFuzzer's options]``: fuzz one target with atheris, starting from the kept corpus.

What libFuzzer keeps (the shortest inputs that reach new code) and what it finds go into ``FUZZ_WORK``, outside the
repository. Copy what is worth keeping to ``fuzz/corpus``: the test suite replays it.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path

import atheris

FOLDER = Path(__file__).resolve().parent


def main(name: str, options: list[str]) -> None:
    """Run libFuzzer until its options or a finding stop it."""
    with atheris.instrument_imports(include=["django_asherah", "fuzz.targets", "json"]):
        set_up_django()
        from fuzz import targets
    logging.disable()  # Every failing region is worth a warning; here, every one of millions of inputs fails.
    work = Path(os.environ.get("FUZZ_WORK") or tempfile.mkdtemp(prefix="fuzz-")) / name
    work.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(targets.seeds(name)):
        (work / f"seed-{number}").write_bytes(seed)
    folders = [work, FOLDER / "corpus" / name]
    atheris.Setup(
        [sys.argv[0], f"-dict={FOLDER / 'records.dict'}", f"-artifact_prefix={work}/", *options, *map(str, folders)],
        targets.TARGETS[name],
    )
    atheris.Fuzz()


def set_up_django() -> None:
    """Give the fields the vectors' keys."""
    import django
    from django.conf import settings

    from fuzz import world

    settings.configure(ASHERAH=world.ASHERAH, INSTALLED_APPS=["django_asherah"])
    django.setup()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
