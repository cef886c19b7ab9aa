"""An admin with encrypted models in it."""

from __future__ import annotations

from django.contrib.admin import AdminSite
from django.urls import path

from tests.testapp.models import Document, Note

site = AdminSite(name="hostile")
site.register(Note)
site.register(Document)

urlpatterns = [path("admin/", site.urls)]
