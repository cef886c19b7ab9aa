"""Checks of where django-tenants, and whatever has its settings, makes the key table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, register

from django_asherah.conf import find_problems, get_settings

_APP = "django_asherah"


@register()
def check_tenant_apps(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse a key table in each tenant's schema: the keys that a process has opened serve all tenants alike."""
    if any(find_problems()):
        return []
    settings = get_settings()
    if settings.metastore_provider.find_database(settings) is None:
        return []
    return [
        Error(
            f"{_APP!r} is in {name}, so each tenant's schema gets a key table of its own: no key is ever stored there, "
            "and the admin would show it in the place of the one that is used.",
            hint=f"Leave {_APP!r} in {shared} alone, so that the key table is in the public schema; a tenant's own "
            "keys are those of its partition. Then drop the empty tables 'encryption_key' of the tenants' schemas.",
            id="asherah.E018",
        )
        for name, shared in _find_tenant_apps()
    ]


def _find_tenant_apps() -> Iterator[tuple[str, str]]:
    """Yield the settings that put this app into tenants' schemas, each with the one that it belongs in.

    Source: django-tenants' documentation of ``TENANT_APPS``, and of ``TENANT_TYPES`` for tenants of several types.
    """
    if _has_app(getattr(django_settings, "TENANT_APPS", ())):
        yield "TENANT_APPS", "SHARED_APPS"
    public = getattr(django_settings, "PUBLIC_SCHEMA_NAME", "public")
    for name, kind in getattr(django_settings, "TENANT_TYPES", {}).items():
        if name != public and _has_app(kind.get("APPS", ())):
            yield f"TENANT_TYPES[{name!r}]['APPS']", f"TENANT_TYPES[{public!r}]['APPS']"


def _has_app(apps: Sequence[str]) -> bool:
    return any(each == _APP or each.startswith(f"{_APP}.apps.") for each in apps)
