"""Where ``celery -A`` finds the app, after Django is set up."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.celery_settings")

from django.conf import settings

settings.INSTALLED_APPS

from tests.celery_settings import app  # noqa: E402

__all__ = ["app"]
