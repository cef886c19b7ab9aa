"""What a tenant's host answers."""

from __future__ import annotations

import os

from django.apps import apps
from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.urls import path


def visit(request: HttpRequest) -> JsonResponse:
    """Save a visit and read it back."""
    visits = apps.get_model("records.Visit").objects
    pk = visits.create(remark=request.GET["text"]).pk
    text = visits.get(pk=pk).remark
    return JsonResponse({"pid": os.getpid(), "schema": connection.schema_name, "text": text})


urlpatterns = [path("visit", visit)]
