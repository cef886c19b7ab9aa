"""The files and tables of the database, byte for byte, after every kind of work: no plaintext, no key."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.db import connections
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from django_asherah import engine, lifecycle
from django_asherah.envelope import aead, native
from tests.databases import VENDOR, as_asherah, execute
from tests.leaks.search import holds
from tests.testapp.models import Note

CANARY = "canary-Zoë-900-12-3456-plaintext"
STATIC_KEY = "c0ffee00" * 8


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every key that becomes a cipher while the test runs: static, system, intermediate and data row keys.

    Native code shows nobody its data row keys, so they are drawn in Python.
    """
    seen = [bytes.fromhex(STATIC_KEY)]

    def watching(key: bytes | bytearray) -> Any:
        seen.append(bytes(key))
        return cipher(key)

    cipher = aead.AESGCM
    monkeypatch.setattr(aead, "AESGCM", watching)
    monkeypatch.setattr(native, "IS_INSTALLED", False)
    return seen


def work(alias: str) -> None:
    """Create, read, change, rotate and delete."""
    note = Note.objects.using(alias).create(title="t", body=CANARY, other_body=CANARY * 50)
    assert Note.objects.using(alias).get(pk=note.pk).body == CANARY
    lifecycle.rotate()
    Note.objects.using(alias).update(body=CANARY + "!")
    notes = [Note(body=f"{CANARY} {n}") for n in range(20)]
    Note.objects.using(alias).bulk_create(notes)
    engine.reset()
    assert [n.body for n in Note.objects.using(alias).all()]
    Note.objects.using(alias).filter(title="t")._raw_delete(alias)


@contextmanager
def journal(alias: str, mode: str) -> Iterator[None]:
    with connections[alias].cursor() as cursor:
        cursor.execute(f"PRAGMA journal_mode={mode}")
        cursor.execute("PRAGMA wal_autocheckpoint=0")
        cursor.execute("PRAGMA secure_delete=OFF")
    yield


@pytest.mark.parametrize("mode", ["WAL", "PERSIST"])
def test_no_file_and_no_table_of_the_database_holds_a_secret(
    mode: str,
    shared_alias: str,
    settings: Settings,
    keys: list[bytes],
    tmp_path: Path,
) -> None:
    settings.ASHERAH = as_asherah(DATABASE=shared_alias, KMS_OPTIONS={"key": STATIC_KEY})
    if VENDOR != "sqlite":
        work(shared_alias)
        stored = b"".join(rows_of(shared_alias))
    else:
        with journal(shared_alias, mode):
            work(shared_alias)
            files = [path for path in tmp_path.rglob("*") if path.is_file()]
            assert len(files) > 1, "the journal is there"
            stored = b"".join(path.read_bytes() for path in files)
    assert b"_IK_default_suite_tests" in stored
    assert len(set(keys)) > 40
    assert holds(stored, CANARY.encode(), *set(keys)) == []


def rows_of(alias: str) -> Iterator[bytes]:
    for table in connections[alias].introspection.table_names():
        for row in execute(alias, f"SELECT * FROM {connections[alias].ops.quote_name(table)}"):
            yield repr(row).encode()


def test_a_search_finds_what_is_there(tmp_path: Path) -> None:
    """The search itself: it would find the canary and a key in a SQLite file."""
    path = tmp_path / "plain.sqlite3"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (a TEXT, b BLOB, c TEXT)")
    connection.execute("INSERT INTO t VALUES (?, ?, ?)", [CANARY, bytes.fromhex(STATIC_KEY), STATIC_KEY])
    connection.commit()
    connection.close()
    found = holds(path.read_bytes(), CANARY.encode(), bytes.fromhex(STATIC_KEY))
    assert found == sorted([CANARY.encode(), bytes.fromhex(STATIC_KEY), STATIC_KEY.encode()])


def test_queries_logs_cache_and_temporary_files_hold_no_secret(
    alias: str,
    settings: Settings,
    keys: list[bytes],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    temporary = tmp_path_factory.mktemp("temporary")
    cache_files = tmp_path_factory.mktemp("cache")
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)
    for logger in (None, "django", "django.db.backends"):
        caplog.set_level("DEBUG", logger)
    settings.ASHERAH = {**settings.ASHERAH, "KMS_OPTIONS": {"key": STATIC_KEY}}
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": str(cache_files)}
    }
    with override_settings(DEBUG=True), CaptureQueriesContext(connections[alias]) as sent:
        work(alias)
    caches["default"].set("x", 1)
    queries = "\n".join(query["sql"] for query in sent)
    assert "INSERT INTO" in queries
    assert "INSERT INTO" in caplog.text
    files = [path.read_bytes() for folder in (temporary, cache_files) for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 1
    for text in (queries, caplog.text, b"".join(files)):
        assert holds(text, CANARY.encode(), *set(keys)) == []
