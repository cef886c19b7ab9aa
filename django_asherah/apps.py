"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class DjangoAsherahConfig(AppConfig):
    """Registers the system checks. Needs no database, no KMS and no keys."""

    name = "django_asherah"
    verbose_name = "Asherah encryption"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import the modules that register themselves."""
        from django.core.serializers import BUILTIN_SERIALIZERS

        from django_asherah import checks, engine, flushes  # noqa: F401

        # Django imports it when something is serialized; a project's SERIALIZATION_MODULES comes after it.
        BUILTIN_SERIALIZERS["xml"] = "django_asherah.xml"
