"""The main job on SQLite: save patients, and look at them from both sides."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

MANAGE = Path(__file__).resolve().parent.parent / "testproject" / "manage.py"


def manage(*arguments: str, **variables: str) -> None:
    """Run a command of the test project in its own process."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings", **variables}
    subprocess.run([sys.executable, str(MANAGE), *arguments], env=environment, check=True)


def main() -> None:
    """Migrate a fresh database, save, and read again from another process."""
    with tempfile.TemporaryDirectory() as folder:
        url = os.environ.get("DATABASE_URL", f"sqlite:///{folder}/clinic.sqlite3")
        manage("migrate", "--verbosity=0", DATABASE_URL=url)
        manage("demo_save", DATABASE_URL=url)
        manage("demo_show", DATABASE_URL=url)


if __name__ == "__main__":
    main()
