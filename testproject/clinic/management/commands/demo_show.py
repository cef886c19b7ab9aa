"""``manage.py demo_show``: what the database holds, what the application sees, and the keys in between."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.utils.timezone import localtime

from clinic.models import Patient
from clinic.samples import load_samples
from django_asherah.models import EncryptionKey


class Command(BaseCommand):
    """Reads every patient back and prints one of them from both sides."""

    help = "Read every patient back; print one as the database holds it and as the application sees it."

    def handle(self, *args: Any, **options: Any) -> None:
        """Read and print."""
        patients = list(Patient._default_manager.order_by("pk"))
        read = [{"name": p.name, "ssn": p.ssn, "record": p.record} for p in patients]
        if read != load_samples():
            raise CommandError("What was read is not what was saved.")
        first = patients[0]
        self._print("What the database holds", _raw_row(first.pk))
        self._print(
            "What the application sees",
            {"ssn": first.ssn, "record": json.dumps(first.record, ensure_ascii=False)},
        )
        self.stdout.write(self.style.MIGRATE_HEADING("\nThe key hierarchy"))
        for line in _hierarchy():
            self.stdout.write(f"  {line}")
        self.stdout.write(f"\nRead {len(patients)} patients: every value is what was saved.")

    def _print(self, title: str, row: dict[str, str]) -> None:
        self.stdout.write(self.style.MIGRATE_HEADING(f"\n{title}"))
        for column, value in row.items():
            text = textwrap.shorten(value, 300, placeholder=" …") if " " in value else value
            cut = text if len(text) <= 300 else f"{text[:300]} … ({len(text)} characters)"
            self.stdout.write(textwrap.indent(textwrap.fill(f"{column}: {cut}", 100), "  "))


def _raw_row(pk: int) -> dict[str, str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT ssn, record FROM clinic_patient WHERE id = %s", [pk])
        ssn, record = cursor.fetchone()
    return {"ssn": ssn, "record": record}


def _hierarchy() -> list[str]:
    keys = EncryptionKey.objects.order_by("created", "-key_id")
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
