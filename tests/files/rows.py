"""Rows with files behind the view, and who asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.core.files.base import ContentFile
from django.core.files.storage import InMemoryStorage
from django.urls import clear_url_caches, path

from django_asherah.storage import EncryptedStorage
from django_asherah.views import EncryptedFileView
from tests.testapp.models import Attachment

FIELD: Any = Attachment._meta.get_field("file")

site = admin.AdminSite("files")


class AttachmentAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("id", "file")


class ShownView(EncryptedFileView):
    model = Attachment
    as_attachment = False


class SlicedView(EncryptedFileView):
    model = Attachment

    def get_queryset(self) -> Any:
        return Attachment.objects.all()[:10]  # A mistake.


def upload_to(row: Attachment, filename: str) -> str:
    return filename  # As it is: with its folder.


site.register(Attachment, AttachmentAdmin)

urlpatterns = [
    path("site/", site.urls),
    path("files/<path:name>", EncryptedFileView.as_view(model=Attachment, login_url="/login/")),
    path("rows/<int:pk>", EncryptedFileView.as_view(model=Attachment, field="file")),
    path("texts/<pk>", EncryptedFileView.as_view(model=Attachment)),
    path("both/<int:pk>/<path:name>", EncryptedFileView.as_view(model=Attachment)),
    path("shown/<path:name>", ShownView.as_view()),
    path("sliced/<path:name>", SlicedView.as_view()),
]


@contextmanager
def stored_in(**options: Any) -> Iterator[InMemoryStorage]:
    """Keep the files of the field in a storage of their own."""
    before, inner = FIELD.storage, InMemoryStorage()
    FIELD.storage = EncryptedStorage(inner, **options)
    clear_url_caches()
    yield inner
    FIELD.storage = before


def row_with(data: bytes, name: str = "scan.pdf") -> Attachment:
    """Make a row whose file has exactly this name."""
    saved = FIELD.storage.save(name, ContentFile(data))
    return Attachment.objects.create(file=saved)


def user_with(*actions: str, **options: Any) -> User:
    user = User.objects.create_user(f"user-{User.objects.count()}", **options)
    user.user_permissions.set(Permission.objects.filter(codename__in=[f"{action}_attachment" for action in actions]))
    return user
