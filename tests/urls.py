"""URLs of the test suite: the admin, and views that tests drive through the test client."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from tests.testapp import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("notes/create/", views.create_note),
    path("notes/create-and-fail/", views.create_note_and_fail),
]
