"""The clinic in the admin."""

from __future__ import annotations

from django.contrib import admin

from clinic.models import Patient


@admin.register(Patient)
class PatientAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Patients, with their encrypted fields as ordinary ones."""

    list_display = ("name", "ssn")
    search_fields = ("name",)
    sortable_by = ("name",)  # No database can sort by a record.
