"""The wheel alone, in an environment of its own, serves the README's example."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent

SETTINGS = """
SECRET_KEY = "x"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
INSTALLED_APPS = ["django_asherah", "app"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ASHERAH = {"SERVICE": "clinic", "PRODUCT": "records", "KMS": "static", "KMS_OPTIONS": {"key": "00" * 32}}
"""


def readme_model() -> tuple[str, str]:
    """Return the README's model, and what it does with it."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.search(r"## A model\n\n```python\n(.*?)```", readme, re.DOTALL)
    assert code is not None
    model, _, use = code[1].partition("\n\n\npatient = ")
    return model, "patient = " + use


@pytest.mark.slow
def test_the_readme_example_works_with_nothing_but_the_wheel(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "uv", "build", "--wheel", "--quiet", "--out-dir", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"django_asherah/{name}" for name in ("py.typed", "testing/__init__.py", "testing/fixtures.py")} <= {*names}
    assert "django_asherah/static/django_asherah/admin.css" in names
    assert "django_asherah/templates/admin/django_asherah/encryptionkey/change_list.html" in names
    assert not [name for name in names if name.startswith(("tests", "testproject", "scripts"))]
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "uv", "venv", "--quiet", "--python", sys.executable, tmp_path / "env"], check=True
    )
    subprocess.run([sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python, wheel], check=True)
    model, use = readme_model()
    (tmp_path / "settings.py").write_text(SETTINGS)
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("")
    (tmp_path / "app" / "models.py").write_text(model)
    script = textwrap.dedent("""
        import django
        django.setup()
        from django.core.management import call_command
        call_command("makemigrations", "app", verbosity=0)
        call_command("migrate", verbosity=0)
        from app.models import Patient
    """)
    last = use.strip().rpartition("\n")
    check = f"{last[0]}\nassert {last[2].partition('#')[0].strip()} == {last[2].partition('#')[2].strip()}\n"
    (tmp_path / "use.py").write_text(f"{script}\n{check}print('done')\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_"))}
    done = subprocess.run(
        [python, "use.py"],
        cwd=tmp_path,
        env=environment | {"DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "done"
