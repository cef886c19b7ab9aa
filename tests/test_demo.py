"""The README's commands, as a new user would run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent


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
    assert listed and read
    assert unread.count("ssn: <SealedValue>") == unread.count("record: <SealedValue>") == 2
    assert "900-" not in unread
    assert (
        "One clinic's record in the other's row Zoë Brontë-Nakamura, clinic 1 (North) "
        "ssn: PartitionMismatchError: clinic.Patient.ssn pk=1: the record names key _IK_clinic-2_clinic_records, but this "
        "partition's key is _IK_clinic-1_clinic_records "
    ) in shown


def test_the_aws_demo_reads_everything_without_the_preferred_region() -> None:
    shown = run("demo_aws.py")
    before, killing, after = shown.partition("Killing the preferred region, us-west-2")
    assert killing
    assert "Read 12 patients: every value is what was saved." in before
    assert "Read 12 patients: every value is what was saved." in after
