"""``manage.py demo_save``: save the sample patients of both clinics."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from clinic.models import Clinic, Patient
from clinic.samples import CLINICS, load_samples_by_clinic


class Command(BaseCommand):
    """Saves the sample patients, replacing any existing ones."""

    help = "Save the sample patients, replacing any existing ones."

    def handle(self, *args: Any, **options: Any) -> None:
        """Save them all with one statement: the keys of both clinics are made together."""
        Patient.objects.all().delete()
        clinics = {name: Clinic._default_manager.get_or_create(name=name)[0] for name in CLINICS}
        patients = [Patient(clinic=clinics[name], **sample) for name, sample in load_samples_by_clinic()]
        Patient.objects.bulk_create(patients)
        self.stdout.write(f"Saved {len(patients)} patients of {len(clinics)} clinics.")
