"""Checks of ``ASHERAH["PARTITION_GUARD"]`` and of the middleware that asks it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as CheckWarning
from django.core.exceptions import ImproperlyConfigured

from django_asherah.conf import find_problems, get_settings
from django_asherah.middleware import find_function

MIDDLEWARE = "django_asherah.middleware.PartitionGuardMiddleware"


@register(Tags.security)
def check_partition_guard(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report a function that isn't there, and one that nobody asks."""
    if any(find_problems()):
        return []
    path, is_installed = get_settings().partition_guard, MIDDLEWARE in django_settings.MIDDLEWARE
    if not path and not is_installed:
        return []
    try:
        find_function(path)
    except ImproperlyConfigured as exc:
        hint = "Give the dotted path of a function that takes a request and returns its partitions, or None."
        return [Error(str(exc), hint=hint, id="asherah.E017")]
    if is_installed:
        return []
    return [
        CheckWarning(
            f"ASHERAH['PARTITION_GUARD'] is {path!r}, but no request is guarded: the middleware is missing.",
            hint=f"Add {MIDDLEWARE!r} to MIDDLEWARE; silence this if a subclass of it is there.",
            id="asherah.W003",
        )
    ]
