"""An admin site of models with encrypted fields, with and without the mixin."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.db import models
from django.urls import path

from django_asherah.admin import EncryptedFieldsAdminMixin
from tests.testapp.models import Document, Note, Typed, Visit

site = admin.AdminSite("mixed")


class VisitInline(EncryptedFieldsAdminMixin, admin.TabularInline):  # type: ignore[type-arg]
    model = Visit
    extra = 0


@admin.register(Note, site=site)
class NoteAdmin(EncryptedFieldsAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("id", "title", "body", "other_body")
    list_editable = ("title", "other_body")
    inlines = (VisitInline,)
    actions = ("resave",)

    @admin.action
    def resave(self, request: Any, queryset: Any) -> None:
        for note in queryset:
            note.title = "by an action"
            note.save()


@admin.register(Document, site=site)
class DocumentAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("name", "doc")
    sortable_by = ("name",)


@admin.register(Typed, site=site)
class TypedAdmin(EncryptedFieldsAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = (
        "id",
        *(field.name for field in Typed._meta.fields if field.name != "id" and not field.name.endswith("_or_none")),
    )
    formfield_overrides: ClassVar[dict[Any, Any]] = {models.URLField: {"assume_scheme": "https"}}  # Django 5.2 warns.


urlpatterns = [path("mixed/", site.urls)]
