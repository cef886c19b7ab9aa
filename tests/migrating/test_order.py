"""The key table is there before whatever encrypts, in whichever order Django would take the apps."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connections
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone
from pytest_django import Settings

from django_asherah import engine
from django_asherah.exceptions import MetastoreError
from django_asherah.models import EncryptionKey
from tests.databases import as_asherah

OURS = ("django_asherah", "0001_encryption_key")
THEIRS = [("attic", name) for name in ("0001_initial", "0002_secret", "0003_fill", "0004_stored")]
SQUASHED = {"attic": "tests.migrating.attic.squashed.migrations"}


@pytest.fixture
def fresh(empty_alias: str, settings: Settings) -> Iterator[str]:
    """A database without tables, and two apps to migrate it: attic, and ours."""
    settings.ASHERAH = as_asherah(DATABASE=empty_alias)
    settings.INSTALLED_APPS = ["tests.migrating.attic", "django_asherah"]
    yield empty_alias
    engine.reset()


@pytest.fixture
def migrate(fresh: str) -> Callable[..., None]:
    return lambda *arguments, **options: call_command("migrate", *arguments, database=fresh, verbosity=0, **options)


def secrets(alias: str) -> list[str]:
    return [box.secret for box in apps.get_model("attic", "Box").objects.using(alias).order_by("pk")]


def applied(alias: str) -> list[tuple[str, str]]:
    """Return what was applied, in that order."""
    rows = MigrationRecorder(connections[alias]).migration_qs.order_by("pk")
    return list(rows.values_list("app", "name"))


@pytest.mark.parametrize("arguments", [(), ("attic",), ("attic", "0004")])
def test_an_app_that_sorts_before_ours(migrate: Callable[..., None], fresh: str, arguments: Any) -> None:
    migrate(*arguments)
    assert [each for each in applied(fresh) if each in (OURS, *THEIRS)] == [OURS, *THEIRS]
    assert secrets(fresh) == ["letters"]
    assert EncryptionKey.objects.using(fresh).count() == 2


def test_squashed_migrations(migrate: Callable[..., None], fresh: str, settings: Settings) -> None:
    settings.MIGRATION_MODULES = SQUASHED
    migrate()
    assert applied(fresh)[0] == OURS
    assert secrets(fresh) == ["letters"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_squashed_migrations_of_which_some_were_applied(
    migrate: Callable[..., None], fresh: str, settings: Settings, count: int
) -> None:
    migrate(*THEIRS[count - 1])
    settings.MIGRATION_MODULES = SQUASHED
    migrate()
    assert secrets(fresh) == ["letters"]


def test_back_and_forth(migrate: Callable[..., None], fresh: str) -> None:
    migrate()
    migrate("attic", "0001")
    assert OURS in applied(fresh)
    migrate()
    assert secrets(fresh) == ["what Box holds", "letters"]
    migrate("attic", "zero")
    migrate()
    assert secrets(fresh) == ["letters"]


def test_taking_our_table_away_takes_no_other(migrate: Callable[..., None], fresh: str) -> None:
    migrate()
    migrate("django_asherah", "zero")
    assert [each for each in applied(fresh) if each in (OURS, *THEIRS)] == THEIRS
    assert "attic_box" in connections[fresh].introspection.table_names()


def test_a_database_that_was_migrated_in_the_other_order_goes_on(migrate: Callable[..., None], fresh: str) -> None:
    migrate("attic", "0002")
    migrate("django_asherah", "zero")
    engine.reset()
    migrate()
    assert secrets(fresh) == ["letters"]
    assert [each for each in applied(fresh) if each in (OURS, *THEIRS)] == [*THEIRS[:2], OURS, *THEIRS[2:]]


def test_tables_that_are_made_without_migrations(migrate: Callable[..., None], fresh: str, settings: Settings) -> None:
    settings.MIGRATION_MODULES = {"django_asherah": None}
    migrate(run_syncdb=True)
    assert secrets(fresh) == ["letters"]


@pytest.mark.django_db(databases=["default", "other"], transaction=True)
def test_keys_in_another_database(migrate: Callable[..., None], fresh: str, settings: Settings) -> None:
    settings.ASHERAH = as_asherah(DATABASE="other")
    migrate()
    assert secrets(fresh) == ["letters"]
    assert EncryptionKey.objects.using(fresh).count() == 0
    assert EncryptionKey.objects.using("other").exists()


def test_an_app_that_encrypts_nothing_is_left_alone(settings: Settings, fresh: str) -> None:
    settings.INSTALLED_APPS = ["django.contrib.contenttypes", *settings.INSTALLED_APPS]
    graph = MigrationLoader(connections[fresh]).graph
    assert OURS in graph.forwards_plan(THEIRS[0])
    assert OURS not in graph.forwards_plan(("contenttypes", "0001_initial"))


def test_sql_that_needs_a_record(migrate: Callable[..., None], fresh: str) -> None:
    out = io.StringIO()
    with pytest.raises(
        MetastoreError, match=rf"^attic\.Box\.secret: .* Is the database migrated\? .*--database {fresh}"
    ):
        call_command("sqlmigrate", "attic", "0002", database=fresh, stdout=out)
    migrate("attic", "0001")
    call_command("sqlmigrate", "attic", "0002", database=fresh, stdout=out)
    assert "ParentKeyMeta" in out.getvalue()
    assert "what Box holds" not in out.getvalue()


def test_nothing_is_left_for_makemigrations(migrate: Callable[..., None], fresh: str) -> None:
    migrate()
    out = io.StringIO()
    call_command("makemigrations", dry_run=True, stdout=out)
    assert "No changes" in out.getvalue()


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Pacific/Kiritimati"])
def test_the_time_of_the_migration_is_an_aware_one(
    migrate: Callable[..., None], fresh: str, settings: Settings, zone: str
) -> None:
    settings.TIME_ZONE = zone
    migrate("attic", "0003")
    before = timezone.now()
    migrate()
    box, after = apps.get_model("attic", "Box").objects.using(fresh).get(), timezone.now()
    assert before <= box.stored <= box.moved <= after
    assert box.stored.tzinfo is UTC
    local = [timezone.localtime(moment).replace(tzinfo=None) for moment in (before, after)]
    assert local[0] <= datetime.combine(box.day, box.hour) <= local[1]


def test_without_time_zones_it_is_a_naive_one(migrate: Callable[..., None], fresh: str, settings: Settings) -> None:
    settings.USE_TZ = False
    before = datetime.now()
    migrate()
    box = apps.get_model("attic", "Box").objects.using(fresh).get()
    assert before <= box.stored <= box.moved <= datetime.now()
