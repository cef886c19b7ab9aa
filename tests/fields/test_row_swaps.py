"""A record of another tenant never opens, whoever put it there, and on whatever path it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django import forms
from django.core import serializers
from django.db import connection, models
from django.db.models import F
from django.forms.models import model_to_dict

from django_asherah.exceptions import DecryptionError, PartitionMismatchError
from django_asherah.fields import EncryptedFieldMixin
from django_asherah.fields.unreadable import TolerantIterable, Unreadable
from tests.fields.helpers import record_of, refused
from tests.testapp import models as testapp
from tests.testapp.models import Clinic, Patient, Typed

pytestmark = pytest.mark.django_db(transaction=True)

TYPES = sorted(
    {type(field) for field in Typed._meta.fields if isinstance(field, EncryptedFieldMixin)}
    | {testapp.EncryptedTextField, testapp.EncryptedJSONField},
    key=lambda each: each.__name__,
)
FORMATS = ["json", "compact", "json-binary"]
NAMES = ("ssn", "history", "scan")


def swap(one: models.Model, two: models.Model, name: str) -> None:
    """Let two rows have each other's record, as somebody could who may write to the table."""
    records = record_of(one, name), record_of(two, name)
    field: Any = one._meta.get_field(name)
    quoted = connection.ops.quote_name(field.column)
    with connection.cursor() as cursor:
        for row, record in zip((two, one), records, strict=True):
            cursor.execute(f"UPDATE {row._meta.db_table} SET {quoted} = %s WHERE id = %s", [record, row.pk])


@pytest.fixture
def swapped(north: Clinic, south: Clinic) -> tuple[Patient, Patient]:
    """Two rows of two tenants, each with the records of the other."""
    one, two = (
        Patient.objects.create(clinic=clinic, ssn=clinic.name, history=[clinic.name], scan=clinic.name.encode())
        for clinic in (north, south)
    )
    for name in NAMES:
        swap(one, two, name)
    return one, two


def read(rows: Any) -> Callable[[], Any]:
    return lambda: [getattr(row, name) for row in rows() for name in NAMES]


class PatientForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Patient
        fields = ("ssn", "history")


PATHS: dict[str, Callable[[], Any]] = {
    "values": lambda: list(Patient.objects.values("ssn", "clinic")),
    "values of binary": lambda: list(Patient.objects.values("scan", "clinic")),
    "values_list": lambda: list(Patient.objects.values_list("clinic", "history")),
    "all values": lambda: list(Patient.objects.values()),
    "annotation": lambda: list(Patient.objects.annotate(s=F("ssn"))),
    "annotation of binary": lambda: list(Patient.objects.annotate(s=F("scan"))),
    "over a relation": lambda: list(Clinic.objects.values("patient__clinic", "patient__ssn")),
    "union": lambda: list(
        Patient.objects.values("ssn", "clinic").union(Patient.objects.values("ssn", "clinic"), all=True)
    ),
    "dumpdata": lambda: serializers.serialize("json", Patient.objects.all()),
    "dumpdata as Python": lambda: serializers.serialize("python", Patient.objects.all()),
    "model_to_dict": lambda: [model_to_dict(row) for row in Patient.objects.all()],
    "form": lambda: PatientForm(instance=Patient.objects.first()).as_p(),
}


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_opens_fails(swapped: Any, path: str) -> None:
    with refused(PartitionMismatchError, r"testapp\.Patient\.(ssn|history|scan)[^:]*: the (compact )?record") as e:
        PATHS[path]()
    assert "north" not in str(e.value).replace("clinic-", "")


INSTANCES: dict[str, Callable[[], Any]] = {
    "all": Patient.objects.all,
    "raw": lambda: Patient.objects.raw("SELECT * FROM testapp_tenants_patient"),
    "in_bulk": lambda: Patient.objects.in_bulk().values(),
    "iterator": Patient.objects.iterator,
    "deferred": lambda: Patient.objects.defer(*NAMES),
    "without its tenant": lambda: Patient.objects.only(*NAMES),
    "select_related": lambda: Patient.objects.select_related("clinic"),
    "prefetched": lambda: [row for c in Clinic.objects.prefetch_related("patient_set") for row in c.patient_set.all()],
    "union": lambda: Patient.objects.all().union(Patient.objects.all()),
}


@pytest.mark.parametrize("path", INSTANCES)
def test_an_instance_loads_and_its_values_do_not_open(swapped: Any, path: str) -> None:
    rows = list(INSTANCES[path]())
    assert len(rows) == 2
    for row in rows:
        for name in NAMES:
            for _ in range(2):
                with pytest.raises(PartitionMismatchError, match=rf"testapp\.Patient\.{name} pk={row.pk}"):
                    getattr(row, name)


def test_a_tenant_that_is_set_on_the_instance_opens_nothing(swapped: tuple[Patient, Patient], south: Clinic) -> None:
    row = Patient.objects.get(pk=swapped[0].pk)
    row.clinic = south
    for name in NAMES:
        with pytest.raises(PartitionMismatchError):
            getattr(row, name)
    with refused(PartitionMismatchError, r"testapp\.Patient"):
        row.save()


def test_saving_keeps_the_records_and_takes_no_value_along(swapped: tuple[Patient, Patient], south: Clinic) -> None:
    before = [record_of(swapped[0], name) for name in NAMES]
    row = Patient.objects.get(pk=swapped[0].pk)
    row.name = "new"
    row.save()
    assert [record_of(row, name) for name in NAMES] == before
    row.pk = None
    row._state.adding = True
    row.clinic = south
    with refused(PartitionMismatchError, "testapp.Patient"):
        row.save()
    assert Patient.objects.count() == 2


def test_a_row_that_is_shown_all_the_same_shows_no_value(swapped: tuple[Patient, Patient]) -> None:
    rows = Patient.objects.order_by("pk")
    rows._iterable_class = TolerantIterable
    for row in rows:
        assert [type(getattr(row, name)) for name in NAMES] == [Unreadable] * 3
        assert {str(getattr(row, name)) for name in NAMES} == {"⚠ could not be decrypted"}


def test_a_record_of_a_constant_partition_does_not_open_in_a_row_and_the_reverse(north: Clinic) -> None:
    patient = Patient.objects.create(clinic=north, ssn="s", remark="r")
    ssn, remark = record_of(patient, "ssn"), record_of(patient, "remark")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE testapp_tenants_patient SET ssn = %s, remark = %s", [remark, ssn])
    row = Patient.objects.get()
    for name in ("ssn", "remark"):
        with pytest.raises(PartitionMismatchError, match=rf"testapp\.Patient\.{name}"):
            getattr(row, name)


@pytest.mark.parametrize("record_format", FORMATS)
@pytest.mark.parametrize("field_type", TYPES, ids=lambda each: each.__name__)
def test_every_type_in_every_format(field_type: Any, record_format: str) -> None:
    """Sealed and opened by the field itself: no two partitions of a template share a record."""
    options = {"max_length": 50} if issubclass(field_type, models.CharField) else {}
    if issubclass(field_type, models.DecimalField):
        options = {"max_digits": 10, "decimal_places": 2}
    field = field_type(partition="clinic-{clinic_id}", record_format=record_format, **options)
    default = next(
        each for each in (*Typed._meta.fields, *Patient._meta.fields) if type(each) is field_type
    ).get_default()
    payload = field.dump(default if default is not None else "text")
    record = field.seal(payload, "clinic-1")
    assert field.open(record, "clinic-1") == payload
    for other in ("clinic-2", "clinic-11", "clinic-", "clinic-1%20", "Clinic-1", "clinic-{clinic_id}"):
        with pytest.raises(PartitionMismatchError):
            field.value_of(record, other)
    with refused(Exception, "says its partition"):
        field.value_of(record)


def test_a_record_whose_key_name_was_rewritten_does_not_open(north: Clinic, south: Clinic) -> None:
    """Another tenant's name in place of the own makes it a record of a key that did not seal it."""
    one = Patient.objects.create(clinic=north, ssn="s", history={})
    Patient.objects.create(clinic=south, ssn="t", history={})
    forged = record_of(one, "ssn").replace(f"_IK_clinic-{north.pk}_", f"_IK_clinic-{south.pk}_")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE testapp_tenants_patient SET ssn = %s WHERE clinic_id = %s", [forged, south.pk])
    with pytest.raises(Exception, match=r"testapp\.Patient\.ssn") as caught:
        Patient.objects.get(clinic=south).ssn
    assert isinstance(caught.value, DecryptionError) or type(caught.value).__name__ == "KeyNotFoundError"
