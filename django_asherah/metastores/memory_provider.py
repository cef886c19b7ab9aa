"""The provider ``memory``: key records in memory."""

from __future__ import annotations

from collections.abc import Iterator

from django_asherah.conf import Settings
from django_asherah.envelope.interfaces import Listener
from django_asherah.metastores.memory import MemoryMetastore
from django_asherah.problems import Problem
from django_asherah.providers import Provider


def _make(settings: Settings, on_event: Listener) -> MemoryMetastore:
    return MemoryMetastore()


def _find_deploy_problems(settings: Settings) -> Iterator[Problem]:
    yield Problem(
        "asherah.E022",
        "ASHERAH['METASTORE'] is 'memory': every key is lost when the process ends, and all data with it.",
        "Use 'database'. The metastore in memory is for tests.",
    )


PROVIDER = Provider(make=_make, find_deploy_problems=_find_deploy_problems)
