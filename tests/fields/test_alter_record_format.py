"""``AlterRecordFormat``: a column changes its type and keeps every record, to the compact format and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.db import DatabaseError, connection, migrations, models
from django.db.migrations.state import ProjectState
from pytest_django import Settings

from django_asherah import engine, lifecycle
from django_asherah.envelope.compact import is_compact
from django_asherah.fields import EncryptedTextField
from django_asherah.operations import AlterRecordFormat
from tests.databases import VENDOR, execute

pytestmark = pytest.mark.django_db(transaction=True)

TABLE = "testapp_moved"
PARTITION = 'quote"back\\slash ünï'


def field(record_format: str, **options: Any) -> EncryptedTextField:
    return EncryptedTextField(record_format=record_format, partition=PARTITION, null=True, **options)


class Project:
    """The states of a project with one model, as migrations make them."""

    def __init__(self) -> None:
        self.state = ProjectState()
        create = migrations.CreateModel(
            "Moved", [("id", models.BigAutoField(primary_key=True)), ("body", field("json"))]
        )
        self.apply(create)

    def apply(self, operation: Any) -> Any:
        """Run an operation forwards; return what takes it back."""
        before, after = self.state, self.state.clone()
        operation.state_forwards("testapp", after)
        with connection.schema_editor() as editor:
            operation.database_forwards("testapp", editor, before, after)
        self.state = after

        def undo() -> None:
            with connection.schema_editor() as editor:
                operation.database_backwards("testapp", editor, after, before)
            self.state = before

        return undo

    def alter(self, record_format: str, **options: Any) -> Any:
        return self.apply(AlterRecordFormat("Moved", "body", field(record_format, **options)))

    @property
    def model(self) -> Any:
        return self.state.apps.get_model("testapp", "Moved")


@pytest.fixture
def project() -> Iterator[Project]:
    engine.reset()
    yield Project()
    execute("default", f"DROP TABLE {TABLE}")


def raw() -> list[Any]:
    return [value for (value,) in execute("default", f"SELECT body FROM {TABLE} ORDER BY id")]


def reencrypt(project: Project) -> None:
    """Rewrite what the command would, were the model one of the project's."""
    from django_asherah.lifecycle.columns import Column
    from django_asherah.lifecycle.reencryption import Options, ReencryptionReport, _Rewriter

    column = Column(project.model, project.model._meta.get_field("body"), "default")
    report = ReencryptionReport()
    _Rewriter(column, Options(), report, lambda count: None).run()
    assert report.bad.total == 0


def values(project: Project) -> list[Any]:
    return list(project.model.objects.order_by("pk").values_list("body", flat=True))


VALUES = ["one", None, "", 'é\\x41\\\\ "quoted" \0 日本語' * 20, "last"]


def test_there_and_back(project: Project) -> None:
    for value in VALUES:
        project.model.objects.create(body=value)
    project.alter("compact")
    assert values(project) == VALUES
    project.model.objects.create(body="compact")
    assert is_compact(raw()[-1])
    reencrypt(project)
    assert all(value is None or is_compact(value) for value in raw())
    assert values(project) == [*VALUES, "compact"]
    project.alter("json-binary")
    project.model.objects.create(body="json")
    assert values(project) == [*VALUES, "compact", "json"]
    reencrypt(project)
    project.alter("json")
    assert values(project) == [*VALUES, "compact", "json"]
    reencrypt(project)
    assert all(value is None or value.startswith('{"Key":{') for value in raw())
    assert values(project) == [*VALUES, "compact", "json"]


def test_taken_back_at_once_it_leaves_every_record_as_it_was(project: Project) -> None:
    for value in VALUES:
        project.model.objects.create(body=value)
    before = raw()
    undo = project.alter("compact")
    assert values(project) == VALUES
    undo()
    assert raw() == before
    assert values(project) == VALUES


def test_no_compact_record_gets_into_a_text_column(project: Project) -> None:
    undo = project.alter("compact")
    project.model.objects.create(body="x" * 200)
    before = raw()
    if VENDOR == "sqlite":  # There a column holds anything, and this app reads it.
        undo()
        assert values(project) == ["x" * 200]
        return
    with pytest.raises(DatabaseError):
        undo()
    assert raw() == before
    assert values(project) == ["x" * 200]


def test_null_changes_with_it(project: Project) -> None:
    project.model.objects.create(body="x")
    operation = AlterRecordFormat(
        "Moved", "body", EncryptedTextField(record_format="compact", partition=PARTITION, default="")
    )
    undo = project.apply(operation)
    with pytest.raises(DatabaseError):
        execute("default", f"INSERT INTO {TABLE} (body) VALUES (NULL)")
    undo()
    assert values(project) == ["x"]


class NothingHere:
    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return False


def test_a_database_that_the_router_excludes_is_left_alone(project: Project, settings: Settings) -> None:
    project.model.objects.create(body="x")
    before = raw()
    settings.DATABASE_ROUTERS = ["tests.fields.test_alter_record_format.NothingHere"]
    project.alter("compact")
    assert raw() == before
    settings.DATABASE_ROUTERS = []
    execute("default", f"INSERT INTO {TABLE} (body) VALUES ('text')")


def test_a_migration_says_what_it_does() -> None:
    operation = AlterRecordFormat("Moved", "body", field("compact"))
    assert operation.describe() == "Alter record format of field body on Moved"
    name, args, kwargs = operation.deconstruct()
    assert (name, args) == ("AlterRecordFormat", [])
    assert kwargs["field"].format.name == "compact"
    assert apps.is_installed("django_asherah")
    assert lifecycle.encrypted_columns(["testapp.Compact.body"])
