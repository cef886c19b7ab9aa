"""Migrations: they store the template as it was written, and their models read and write as the real ones do."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import pytest
from django.core.exceptions import FieldError
from django.db import connection, migrations, models
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.questioner import MigrationQuestioner
from django.db.migrations.state import ModelState, ProjectState
from django.db.migrations.writer import MigrationWriter

from django_asherah.fields import EncryptedQuerySet, EncryptedTextField
from tests.fields.helpers import is_sealed_for, record_of, refused
from tests.testapp.models import Clinic, Patient
from tests.testapp.tenants import Member

pytestmark = pytest.mark.django_db


def state_of(*models_of_app: Any, **fields: Any) -> ProjectState:
    """Return the state of these models, with other fields in the last."""
    state = ProjectState()
    for model in models_of_app:
        state.add_model(ModelState.from_model(model))
    last = state.models["testapp", models_of_app[-1]._meta.model_name]
    last.fields.update(fields)
    return state


def changes(old: ProjectState, new: ProjectState) -> list[Any]:
    detected = MigrationAutodetector(old, new, MigrationQuestioner())._detect_changes()  # type: ignore[attr-defined]
    return [operation for migration in detected.get("testapp", []) for operation in migration.operations]


class TestText:
    def test_the_template_is_stored_as_it_was_written(self) -> None:
        text, imports = MigrationWriter.serialize(Patient._meta.get_field("ssn"))
        assert text == "django_asherah.fields.EncryptedTextField(null=True, partition='clinic-{clinic_id}')"
        assert imports == {"import django_asherah.fields"}

    @pytest.mark.parametrize("partition", ["clinic-{clinic_id}", "{{x}}-{clinic_id}", "'{clinic_id}\"", "ü{clinic_id}"])
    def test_it_comes_back_the_same(self, partition: str) -> None:
        _, path, args, kwargs = EncryptedTextField(partition=partition).deconstruct()
        assert (path, args, kwargs) == ("django_asherah.fields.EncryptedTextField", [], {"partition": partition})
        text, _ = MigrationWriter.serialize(EncryptedTextField(partition=partition))
        field = eval(text, {"django_asherah": __import__("django_asherah.fields")})
        assert field.deconstruct()[1:] == (path, args, kwargs)

    def test_no_change_is_none(self) -> None:
        assert changes(state_of(Clinic, Patient), state_of(Clinic, Patient)) == []

    def test_another_template_is_one(self) -> None:
        new = EncryptedTextField(null=True, partition="other-{clinic_id}")
        (operation,) = changes(state_of(Clinic, Patient), state_of(Clinic, Patient, ssn=new))
        assert isinstance(operation, migrations.AlterField)
        assert operation.field.partition == "other-{clinic_id}"  # type: ignore[attr-defined]

    def test_and_changes_no_column(self) -> None:
        old, new = Patient._meta.get_field("ssn"), EncryptedTextField(null=True, partition="other-{clinic_id}")
        new.set_attributes_from_name("ssn")
        new.model = Patient
        editor: Any = connection.SchemaEditorClass(connection, collect_sql=True)
        assert not editor._field_should_be_altered(old, new)


class TestHistoricalModels:
    VALUES: ClassVar[dict[str, Any]] = {"ssn": "900-12", "history": {"a": [1]}, "scan": b"\x00\xff"}

    @pytest.fixture
    def historical(self) -> Any:
        """The patient of a ``RunPython``."""
        return state_of(Clinic, Patient).apps.get_model("testapp", "Patient")

    def values(self, row: Any) -> dict[str, Any]:
        return {name: getattr(row, name) for name in self.VALUES}

    def test_they_read_what_the_real_ones_wrote(self, historical: Any, north: Clinic) -> None:
        Patient.objects.create(clinic=north, **self.VALUES)
        assert historical is not Patient
        assert self.values(historical.objects.get()) == self.VALUES
        assert historical.objects.values_list("ssn", "clinic").get() == ("900-12", north.pk)
        with refused(FieldError, r"testapp\.Patient\.ssn: .* select clinic_id"):
            historical.objects.values_list("ssn").get()

    def test_they_write_for_the_real_ones(self, historical: Any, north: Clinic, south: Clinic) -> None:
        historical.objects.create(clinic_id=north.pk, **self.VALUES)
        historical.objects.bulk_create([historical(clinic_id=south.pk, **self.VALUES)])
        for row in Patient.objects.all():
            assert self.values(row) == self.VALUES
            assert is_sealed_for(row, "ssn", f"clinic-{row.clinic_id}")

    @pytest.mark.parametrize("is_read", [True, False])
    def test_they_move_rows(self, historical: Any, north: Clinic, south: Clinic, is_read: bool) -> None:
        made = Patient.objects.create(clinic=north, **self.VALUES)
        row = historical.objects.get()
        if is_read:
            self.values(row)
        row.clinic_id = south.pk
        with refused(FieldError, "'clinic' has changed"):
            row.save(update_fields=["clinic"])
        row.save()
        assert is_sealed_for(made, "ssn", f"clinic-{south.pk}")
        assert self.values(Patient.objects.get()) == self.VALUES

    def test_unread_rows_are_written_as_they_are(self, historical: Any, north: Clinic) -> None:
        made = Patient.objects.create(clinic=north, **self.VALUES)
        before = record_of(made, "scan")
        historical.objects.get().save()
        assert record_of(made, "scan") == before

    def test_updates_of_many(self, historical: Any, north: Clinic) -> None:
        Patient.objects.create(clinic=north, **self.VALUES)
        row = historical.objects.get()
        row.ssn = "new"
        with refused(FieldError, r"bulk_update\(\) of django_asherah\.fields\.EncryptedQuerySet"):
            historical.objects.bulk_update([row], ["ssn"])
        EncryptedQuerySet(historical).bulk_update([row], ["ssn"])
        assert Patient.objects.get().ssn == "new"

    def test_of_a_model_whose_manager_is_ours(self) -> None:
        historical: Any = state_of(Member).apps.get_model("testapp", "Member")
        Member.objects.create(tenant="a", secret="s")
        assert historical.objects.get().secret == "s"

    def test_a_new_version_of_the_model_reads_with_its_own_template(self, north: Clinic) -> None:
        """A changed template reads nothing that stands there: it is another partition."""
        Patient.objects.create(clinic=north, **self.VALUES)
        new = EncryptedTextField(null=True, partition="other-{clinic_id}")
        historical: Any = state_of(Clinic, Patient, ssn=new).apps.get_model("testapp", "Patient")
        row = historical.objects.get()
        with refused(Exception, rf"other-{north.pk}_suite_tests"):
            row.ssn
        assert row.history == {"a": [1]}


class TestLateFields:
    """Of models whose fields are made in another way than by a class body."""

    def test_a_field_that_is_added_to_a_model(self) -> None:
        historical: Any = state_of(Clinic, Patient).apps.get_model("testapp", "Patient")
        field = historical._meta.get_field("ssn")
        assert field.partition_fields == (historical._meta.get_field("clinic"),)
        assert field.partition_fields[0].model is historical

    def test_a_clone_of_a_field_takes_the_columns_of_its_own_model(self) -> None:
        self.assert_own_columns(Member._meta.get_field("secret").clone())

    def test_a_copy_of_a_field_takes_the_columns_of_its_own_model(self) -> None:
        original: Any = Member._meta.get_field("secret")
        assert original.partition_fields[0].model is Member
        self.assert_own_columns(copy.copy(original))

    def assert_own_columns(self, field: Any) -> None:
        meta = type("Meta", (), {"apps": ProjectState().apps, "app_label": "testapp"})
        body = {"__module__": __name__, "Meta": meta, "tenant": models.CharField(max_length=9), "secret": field}
        model: Any = type("Copied", (models.Model,), body)
        (column,) = model._meta.get_field("secret").partition_fields
        assert column.model is model
