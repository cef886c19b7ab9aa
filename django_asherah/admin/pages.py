"""The pages of the admin of keys that Django's own admin has not."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import ModelAdmin
from django.http import HttpRequest
from django.template.response import TemplateResponse


def render_page(model_admin: ModelAdmin[Any], request: HttpRequest, name: str, **context: Any) -> TemplateResponse:
    """Return one of the pages in ``templates/admin/django_asherah/encryptionkey``."""
    request.current_app = model_admin.admin_site.name
    shared = {"title": "Encryption keys", "opts": model_admin.opts, "media": model_admin.media}
    return TemplateResponse(
        request,
        f"admin/django_asherah/encryptionkey/{name}.html",
        {**model_admin.admin_site.each_context(request), **shared, **context},
    )
