"""Peers on the key table under test: of the default database, and on SQLite of a file."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pytest_django import Settings

from tests.databases import VENDOR, as_asherah, url_of
from tests.interop.peers import STATIC_KEY, Peer, static_config

CORES = ["rust"] if VENDOR == "sqlite" else ["rust", "go"]


@pytest.fixture
def shared_alias(transactional_db: None, request: pytest.FixtureRequest, settings: Settings) -> str:
    """A database that other processes see, configured as that of the keys, with the SDKs' static key."""
    alias: str = request.getfixturevalue("file_alias") if VENDOR == "sqlite" else "default"
    settings.ASHERAH = as_asherah(DATABASE=alias, KMS_OPTIONS={"key": STATIC_KEY.hex()})
    return alias


@pytest.fixture(params=CORES)
def peer(request: pytest.FixtureRequest, shared_alias: str, start: Callable[..., Peer]) -> Peer:
    """A peer on the shared key table, with the static KMS."""
    return start(request.param, static_config(request.param, url_of(shared_alias)))
