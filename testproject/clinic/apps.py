"""The clinic app."""

from __future__ import annotations

from django.apps import AppConfig


class ClinicConfig(AppConfig):
    """Patients and their records."""

    name = "clinic"
