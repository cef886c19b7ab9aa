"""``dumpdata`` writes of encrypted fields what it writes of the plain ones, and ``loaddata`` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core import serializers
from django.core.management import call_command

from tests.ecosystem.suite.kinds import VALUES, Own, Plain, Sealed
from tests.ecosystem.suite.models import Resident
from tests.fields.helpers import opened, raw
from tests.testapp.models import Clinic

pytestmark = pytest.mark.django_db

FORMATS = ["json", "jsonl", "xml", "yaml"]


def create(model: Any, name: str = "a", **changed: Any) -> Any:
    return model.objects.create(name=name, **{kind.lower(): value for kind, value in VALUES.items()} | changed)


def values_of(instance: Any) -> dict[str, Any]:
    return {kind: getattr(instance, kind.lower()) for kind in VALUES}


@pytest.mark.parametrize("natural", [False, True], ids=["keys", "natural_keys"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_dump_is_the_plain_models_byte_for_byte(format: str, natural: bool) -> None:
    dumps = [
        serializers.serialize(format, [create(model, pk=7)], use_natural_primary_keys=natural)
        for model in (Plain, Sealed)
    ]
    assert dumps[1].replace("suite.sealed", "suite.plain") == dumps[0]


@pytest.mark.parametrize("natural", [False, True], ids=["keys", "natural_keys"])
@pytest.mark.parametrize("format", FORMATS)
def test_every_kind_comes_back_from_a_dump(tmp_path: Path, format: str, natural: bool) -> None:
    create(Sealed)
    create(Sealed, name="b", textfield=None)
    dump = tmp_path / f"dump.{format}"
    call_command("dumpdata", "suite.Sealed", format=format, use_natural_primary_keys=natural, output=str(dump))
    Sealed.objects.all().delete()
    call_command("loaddata", str(dump), verbosity=0)
    a, b = Sealed.objects.order_by("name")
    assert values_of(a) == VALUES
    assert values_of(b) == VALUES | {"TextField": None}
    assert opened(a, "jsonfield") == '{"a":[1,null,"<ö>"]}'.encode()


@pytest.mark.parametrize("document", [None, "", "text", '{"a": 1}', 0, 1.5, True, [], {}, {"a": {"b": [None]}}])
@pytest.mark.parametrize("format", FORMATS)
def test_every_document_comes_back(format: str, document: Any) -> None:
    dumps = []
    for model in (Plain, Sealed):
        instance = model(name="a", jsonfield=document)
        dumps.append(serializers.serialize(format, [instance], fields=["name", "jsonfield"]))
    assert dumps[1].replace("suite.sealed", "suite.plain") == dumps[0]
    (read,) = serializers.deserialize(format, dumps[1])
    assert read.object.jsonfield == document
    assert type(read.object.jsonfield) is type(document)


def test_a_dump_of_plain_fields_is_read_into_encrypted_ones() -> None:
    dump = serializers.serialize("xml", [create(Plain)]).replace("suite.plain", "suite.sealed")
    (read,) = serializers.deserialize("xml", dump)
    read.save()
    assert values_of(Sealed.objects.get()) == VALUES


@pytest.mark.parametrize("format", FORMATS)
def test_documents_of_a_class_of_ones_own_come_back(format: str) -> None:
    dump = serializers.serialize(format, [Own(document={"a": [1]})])
    (read,) = serializers.deserialize(format, dump)
    assert read.object.document == {"a": [1]}


@pytest.mark.parametrize("format", FORMATS)
def test_a_row_that_says_whose_key_it_has_comes_back(format: str) -> None:
    clinic = Clinic.objects.create()
    resident = Resident.objects.create(clinic=clinic, secret="s", doc={"a": [1]})
    dump = serializers.serialize(format, [resident])
    resident.delete()
    (read,) = serializers.deserialize(format, dump)
    read.save()
    again = Resident.objects.get()
    assert (again.secret, again.doc) == ("s", {"a": [1]})
    assert f"_IK_clinic-{clinic.pk}_" in raw(again, "doc")
