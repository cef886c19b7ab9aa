"""``manage.py demo_save``: save the sample patients."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from clinic.models import Patient
from clinic.samples import load_samples


class Command(BaseCommand):
    """Saves the sample patients, replacing any existing ones."""

    help = "Save the sample patients, replacing any existing ones."

    def handle(self, *args: Any, **options: Any) -> None:
        """Save them."""
        Patient._default_manager.all().delete()
        for sample in load_samples():
            Patient._default_manager.create(**sample)
        self.stdout.write(f"Saved {Patient._default_manager.count()} patients.")
