"""A site of two encrypted files for real servers, one damaged in the middle. It needs no database."""

from __future__ import annotations

from typing import Any

import django
from django.conf import settings

django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.files.base import ContentFile  # noqa: E402
from django.core.files.storage import InMemoryStorage  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.urls import path  # noqa: E402

from django_asherah.envelope.files import CHUNK_LENGTH  # noqa: E402
from django_asherah.storage import EncryptedStorage  # noqa: E402
from django_asherah.views import EncryptedFileView  # noqa: E402
from tests.testapp.models import Attachment  # noqa: E402

LENGTH = 4 * CHUNK_LENGTH

settings.ASHERAH = {**settings.ASHERAH, "METASTORE": "memory"}
settings.MIDDLEWARE = []
settings.ROOT_URLCONF = __name__
settings.ALLOWED_HOSTS = ["127.0.0.1"]

inner = InMemoryStorage()
field: Any = Attachment._meta.get_field("file")
field.storage = EncryptedStorage(inner)
field.storage.save("whole", ContentFile(bytes(LENGTH)))
data = bytearray(inner.open("whole").read())
data[2 * CHUNK_LENGTH] ^= 1
inner.save("damaged", ContentFile(bytes(data)))


class OneRow:
    def filter(self, **lookup: Any) -> list[Attachment]:
        return [Attachment(**lookup)]


class View(EncryptedFileView):
    model = Attachment

    def get_queryset(self) -> Any:
        return OneRow()

    def has_permission(self, row: Any) -> bool:
        return True


urlpatterns = [path("<path:name>", View.as_view())]
wsgi = get_wsgi_application()
asgi = get_asgi_application()
