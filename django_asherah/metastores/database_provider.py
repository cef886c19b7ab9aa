"""The provider ``database``: key records in a Django database."""

from __future__ import annotations

from collections.abc import Iterator

from django.conf import settings as django_settings

from django_asherah.conf import Settings
from django_asherah.envelope.interfaces import Listener
from django_asherah.metastores.database import DatabaseMetastore
from django_asherah.problems import Problem
from django_asherah.providers import Provider, RawSettings


def _make(settings: Settings, on_event: Listener) -> DatabaseMetastore:
    return DatabaseMetastore(settings.database)


def _find_problems(raw: RawSettings) -> Iterator[Problem]:
    alias = raw.get("DATABASE", "default")
    if alias not in list(django_settings.DATABASES):
        yield Problem(
            "asherah.E009",
            f"ASHERAH['DATABASE'] is {alias!r}, which is not in settings.DATABASES.",
            f"Choose one of: {', '.join(django_settings.DATABASES)}.",
        )


def _find_database(settings: Settings) -> str:
    return settings.database


PROVIDER = Provider(make=_make, find_problems=_find_problems, find_database=_find_database)
