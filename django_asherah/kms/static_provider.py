"""The provider ``static``: one master key that stands in the settings."""

from __future__ import annotations

import re
from collections.abc import Iterator

from django_asherah.conf import Settings
from django_asherah.envelope.interfaces import Listener
from django_asherah.kms.static import StaticKMS
from django_asherah.problems import Problem
from django_asherah.providers import Provider, RawSettings

_KEY = re.compile(r"[0-9A-Fa-f]{64}")


def _make(settings: Settings, on_event: Listener) -> StaticKMS:
    return StaticKMS(bytes.fromhex(settings.kms_options["key"]))


def _find_problems(raw: RawSettings) -> Iterator[Problem]:
    key = raw.get("KMS_OPTIONS", {}).get("key")
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        # The value itself stays out of the message: it is, or was meant to be, a key.
        yield Problem(
            "asherah.E014",
            "ASHERAH['KMS_OPTIONS']['key'] is not a key of 32 bytes.",
            "Give 64 hex digits, for example from python -c 'import secrets; print(secrets.token_hex(32))'.",
        )


def _find_deploy_problems(settings: Settings) -> Iterator[Problem]:
    yield Problem(
        "asherah.E020",
        "ASHERAH['KMS'] is 'static': the master key stands in the settings.",
        "Use 'aws' with a KMS key in each region. The static KMS is for development and tests.",
    )


PROVIDER = Provider(
    make=_make, options=("key",), find_problems=_find_problems, find_deploy_problems=_find_deploy_problems
)
