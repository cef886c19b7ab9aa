"""The clinics in the admin."""

from __future__ import annotations

from django.contrib import admin

from clinic.models import Clinic, Patient

admin.site.register(Clinic)


@admin.register(Patient)
class PatientAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Patients. Their list opens nothing that is encrypted; a patient's own page does."""

    list_display = ("name", "clinic")
    list_filter = ("clinic",)
    list_select_related = ("clinic",)
    search_fields = ("name",)
