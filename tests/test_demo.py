"""The README's commands, as a new user would run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent

SAVE_WITHOUT_CLINIC = """
import django
django.setup()
from django.db import connection
from django.db.migrations.loader import MigrationLoader
apps = MigrationLoader(connection).project_state(("clinic", "0001_initial")).apps
apps.get_model("clinic", "Patient").objects.create(name="Zo\u00eb", ssn="900", record={})
"""


def run(script: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    command = [sys.executable, str(ROOT / "scripts" / script)]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def test_the_demo_shows_both_sides_and_the_keys() -> None:
    shown = run("demo.py")
    assert "Saved 12 patients of 2 clinics." in shown
    assert 'ssn: {"Key":{"Created":' in shown
    assert "ssn: 900-20-3887" in shown
    assert "system key        _SK_clinic_records" in shown
    assert "intermediate key _IK_clinic-1_clinic_records" in shown
    assert "intermediate key _IK_clinic-2_clinic_records" in shown
    assert "Read 12 patients: every value is what was saved." in shown


def test_the_demo_shows_what_is_held_unread_and_one_clinics_record_refused_in_the_others_row() -> None:
    shown = " ".join(run("demo.py").split())
    _, listed, after = shown.partition("What a list of patients holds, as nobody has read a value yet")
    unread, read, _ = after.partition("What the application sees")
    assert listed
    assert read
    assert unread.count("ssn: <SealedValue>") == unread.count("record: <SealedValue>") == 2
    assert "900-" not in unread
    assert (
        "One clinic's record in the other's row Zoë Brontë-Nakamura, clinic 1 (North) "
        "ssn: PartitionMismatchError: clinic.Patient.ssn pk=1: the record names key _IK_clinic-2_clinic_records, "
        "but this partition's key is _IK_clinic-1_clinic_records "
    ) in shown


def test_patients_from_before_there_were_clinics_are_sealed_for_theirs(tmp_path: Path) -> None:
    """As the how-to moves from one key for all to one key per tenant."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ASHERAH_")}
    environment |= {"DATABASE_URL": f"sqlite:///{tmp_path}/clinic.sqlite3", "DJANGO_SETTINGS_MODULE": "config.settings"}

    def python(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, env=environment, check=False, capture_output=True, text=True, cwd=ROOT / "testproject"
        )
        return done.returncode, done.stdout + done.stderr

    for target in (["django_asherah"], ["clinic", "0001"]):
        assert python("manage.py", "migrate", "--verbosity=0", *target)[0] == 0
    code, shown = python("-c", SAVE_WITHOUT_CLINIC)
    assert (code, shown) == (0, "")
    assert python("manage.py", "migrate", "--verbosity=0")[0] == 0
    code, shown = python("manage.py", "asherah_reencrypt", "clinic.Patient")
    assert code == 1
    assert "the record is of partition 'default', but the row says 'clinic-1'" in shown
    code, shown = python("manage.py", "asherah_reencrypt", "clinic.Patient", "--moved")
    assert (code, "clinic.Patient.ssn: 1 of these were another partition's." in shown) == (0, True)
    code, shown = python("manage.py", "asherah_verify", "--data", "clinic.Patient")
    assert (code, "clinic.Patient.ssn: 1 values open." in shown) == (0, True)


def test_the_aws_demo_reads_everything_without_the_preferred_region() -> None:
    shown = run("demo_aws.py")
    before, killing, after = shown.partition("Killing the preferred region, us-west-2")
    assert killing
    assert "Read 12 patients: every value is what was saved." in before
    assert "Read 12 patients: every value is what was saved." in after
