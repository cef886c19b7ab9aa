"""``manage.py demo_show``: what the database holds, what the application sees, and the keys in between."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection, transaction
from django.utils.timezone import localtime

from clinic.models import Patient
from clinic.samples import CLINICS, load_samples_by_clinic
from django_asherah.exceptions import PartitionMismatchError
from django_asherah.models import EncryptionKey


class Command(BaseCommand):
    """Reads every patient back, prints one of each clinic from both sides, and tries to mix them up."""

    help = "Read every patient back; print one of each clinic as the database holds it and as the application sees it."

    def handle(self, *args: Any, **options: Any) -> None:
        """Read and print."""
        patients = list(Patient.objects.select_related("clinic").order_by("pk"))
        first, second = (next(each for each in patients if each.clinic.name == name) for name in CLINICS)
        self._title("What the database holds")
        for patient in (first, second):
            self._print(patient, **_raw_row(patient))
        self._title("What a list of patients holds, as nobody has read a value yet")
        for patient in (first, second):
            self._print(patient, ssn=repr(vars(patient)["ssn"]), record=repr(vars(patient)["record"]))
        self._title("What the application sees")
        for patient in (first, second):
            self._print(patient, ssn=patient.ssn, record=json.dumps(patient.record, ensure_ascii=False))
        self._title("One clinic's record in the other's row")
        self._print(first, ssn=_refusal_of_record(second, first))
        self._title("The key hierarchy")
        for line in _hierarchy():
            self.stdout.write(f"  {line}")
        read = [(p.clinic.name, {"name": p.name, "ssn": p.ssn, "record": p.record}) for p in patients]
        if read != load_samples_by_clinic():
            raise CommandError("What was read is not what was saved.")
        self.stdout.write(f"\nRead {len(patients)} patients: every value is what was saved.")

    def _title(self, title: str) -> None:
        self.stdout.write(self.style.MIGRATE_HEADING(f"\n{title}"))

    def _print(self, patient: Patient, **columns: str) -> None:
        self.stdout.write(f"  {patient.name}, clinic {patient.clinic.pk} ({patient.clinic})")
        for column, value in columns.items():
            text = textwrap.shorten(value, 300, placeholder=" …") if " " in value else value
            cut = text if len(text) <= 300 else f"{text[:300]} … ({len(text)} characters)"
            self.stdout.write(textwrap.indent(textwrap.fill(f"{column}: {cut}", 100, break_on_hyphens=False), "    "))


def _raw_row(patient: Patient) -> dict[str, str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT ssn, record FROM clinic_patient WHERE id = %s", [patient.pk])
        ssn, record = cursor.fetchone()
    return {"ssn": ssn, "record": record}


def _refusal_of_record(donor: Patient, patient: Patient) -> str:
    """Copy a patient's record into another's row, as a database administrator could; return what reading it raises."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("UPDATE clinic_patient SET ssn = %s WHERE id = %s", [_raw_row(donor)["ssn"], patient.pk])
        swapped = Patient.objects.get(pk=patient.pk)
        transaction.set_rollback(True)
    try:
        opened = swapped.ssn
    except PartitionMismatchError as exc:
        return f"PartitionMismatchError: {exc}"
    raise CommandError(f"A record of another clinic opened, and holds {len(opened)} characters.")


def _hierarchy() -> list[str]:
    keys = EncryptionKey.objects.order_by("created", "key_id")
    systems = [key for key in keys if "ParentKeyMeta" not in key.key_record]
    lines = []
    for system in systems:
        lines.append(f"system key        {system.key_id}  created {localtime(system.created):%Y-%m-%d %H:%M} UTC")
        lines += [
            f"└ intermediate key {key.key_id}  created {localtime(key.created):%Y-%m-%d %H:%M} UTC"
            for key in keys
            if key.key_record.get("ParentKeyMeta", {}).get("KeyId") == system.key_id
        ]
    return lines
