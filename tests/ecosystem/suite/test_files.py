"""Django REST framework with an encrypted file."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from rest_framework.serializers import ModelSerializer
from rest_framework.test import APIRequestFactory

from tests.databases import as_asherah
from tests.files.rows import stored_in
from tests.testapp.models import Attachment

pytestmark = pytest.mark.django_db


class AttachmentSerializer(ModelSerializer):  # type: ignore[type-arg]
    class Meta:
        model = Attachment
        fields = ("file",)


@pytest.mark.parametrize(
    ("options", "shown"),
    [({"base_url": "/files/"}, "http://testserver/files/Zo%C3%AB.pdf"), ({}, None)],
    ids=["with a base_url", "without"],
)
def test_a_serializer_stores_a_file_and_shows_its_url_if_there_is_one(
    options: dict[str, str], shown: str | None, settings: Any
) -> None:
    settings.ASHERAH = as_asherah(METASTORE="memory")
    with stored_in(**options):
        request = APIRequestFactory().get("/")
        upload = SimpleUploadedFile("Zoë.pdf", b"secret")
        made = AttachmentSerializer(data={"file": upload}, context={"request": request})
        assert made.is_valid(), made.errors
        row = made.save()
        assert made.data == {"file": shown}
        assert row.file.read() == b"secret"
        assert AttachmentSerializer(row, context={"request": request}).data == {"file": shown}
