"""django-filter, django-import-export, factory_boy, pytest-django, and Django's own commands."""

from __future__ import annotations

import io
from typing import Any

import django_filters
import factory
import pytest
from django.core.exceptions import FieldError
from django.core.management import call_command
from import_export import resources
from tablib import Dataset

from tests.ecosystem.suite.models import Patient
from tests.fields.helpers import opened, raw

pytestmark = pytest.mark.django_db


class TestFilter:
    def test_whether_it_is_null_is_a_filter(self) -> None:
        class IsKnown(django_filters.FilterSet):
            known = django_filters.BooleanFilter("secret", lookup_expr="isnull", exclude=True)

            class Meta:
                model = Patient
                fields = ("name",)

        patient = Patient.objects.create(name="a", secret="s")
        assert list(IsKnown({"known": "true", "name": "a"}, Patient.objects.all()).qs) == [patient]
        assert list(IsKnown({"known": "false"}, Patient.objects.all()).qs) == []

    def test_a_filter_on_the_value_is_refused(self) -> None:
        class ByValue(django_filters.FilterSet):
            secret = django_filters.CharFilter()

            class Meta:
                model = Patient
                fields = ("name",)

        with pytest.raises(FieldError, match=r"suite\.Patient\.secret is encrypted"):
            list(ByValue({"secret": "s"}, Patient.objects.all()).qs)


class PatientResource(resources.ModelResource):
    class Meta:
        model = Patient
        fields = ("id", "name", "secret", "doc")


class TestImportExport:
    def test_an_export_holds_the_values_and_an_import_encrypts_them(self) -> None:
        Patient.objects.create(name="a", secret="Zoë", doc={"a": [1]})
        exported = PatientResource().export().csv
        assert "Zoë" in exported
        Patient.objects.all().delete()
        result = PatientResource().import_data(Dataset().load(exported, format="csv"), raise_errors=True)
        assert not result.has_errors()
        patient = Patient.objects.get()
        assert (patient.secret, patient.doc) == ("Zoë", {"a": [1]})
        assert opened(patient, "secret") == "Zoë".encode()

    def test_an_unchanged_row_is_seen_as_such(self) -> None:
        patient = Patient.objects.create(name="a", secret="s")
        before = raw(patient, "secret")

        class Careful(PatientResource):
            class Meta(PatientResource.Meta):
                skip_unchanged = True

        result = Careful().import_data(Careful().export(), raise_errors=True)
        assert result.totals["skip"] == 1
        assert raw(patient, "secret") == before


class PatientFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = Patient

    secret = factory.Faker("ssn")
    doc = factory.Dict({"a": factory.Sequence(int)})


class TestFactoryBoy:
    def test_create_and_batch(self) -> None:
        patient, *_ = PatientFactory.create_batch(3)
        patient.refresh_from_db()
        assert opened(patient, "secret") == patient.secret.encode()
        assert "a" in patient.doc


class TestPytestDjango:
    def test_its_fixtures(self, django_assert_num_queries: Any, settings: Any) -> None:
        settings.ASHERAH = {**settings.ASHERAH, "METASTORE": "memory"}
        Patient.objects.create(secret="s")  # The keys are made now.
        with django_assert_num_queries(1):
            Patient.objects.create(secret="s")
        with django_assert_num_queries(1):
            assert [patient.secret for patient in Patient.objects.all()] == ["s", "s"]


class TestCommands:
    def test_shell(self, capsys: pytest.CaptureFixture[str]) -> None:
        Patient.objects.create(secret="seen in the shell")
        code = "from tests.ecosystem.suite.models import Patient; print(Patient.objects.get().secret)"
        call_command("shell", command=code, stdout=io.StringIO())
        assert "seen in the shell" in capsys.readouterr().out
