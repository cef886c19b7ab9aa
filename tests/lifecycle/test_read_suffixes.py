"""Data of other regions' suffixes, and of the time before there was one: in fields, commands and the admin."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.storage import InMemoryStorage
from django.test import Client
from pytest_django import Settings

from django_asherah import engine, lifecycle
from django_asherah.envelope.records import KeyMeta
from django_asherah.exceptions import PartitionMismatchError
from django_asherah.guard import partition_guard
from django_asherah.lifecycle.origins import Origin, Origins
from django_asherah.models import EncryptionKey
from django_asherah.storage import EncryptedStorage
from tests.admin.conftest import LIST
from tests.databases import as_asherah
from tests.fields.helpers import record_of
from tests.lifecycle.conftest import Run
from tests.lifecycle.tenants import clinics
from tests.testapp.models import Clinic, Compact, Note, Patient

pytestmark = pytest.mark.django_db(transaction=True)


def use(settings: Settings, suffix: str, *others: str, **changes: Any) -> None:
    """Go on as a process with this suffix, which reads the others."""
    settings.ASHERAH = as_asherah(KEY_SUFFIX=suffix, READ_SUFFIXES=list(others), **changes)


def ids(prefix: str = "") -> set[str]:
    return {row.key_id for row in EncryptionKey.objects.filter(key_id__startswith=prefix)}


def key_id(partition: str, suffix: str) -> str:
    return f"_IK_{partition}_suite_tests{'_' * bool(suffix)}{suffix}"


@pytest.fixture
def clinic() -> Clinic:
    return clinics(1)[0]


@pytest.fixture(params=["", "us-west-2", "ap_south"])
def written(request: pytest.FixtureRequest, settings: Settings, clinic: Clinic) -> str:
    """The suffix under which one row of each kind was written; the process goes on as one of region eu."""
    use(settings, request.param)
    Note.objects.create(body="note")
    Compact.objects.create(body="body", doc=["doc"], apart="apart", json_bytes="json", plain="plain")
    Patient.objects.create(clinic=clinic, ssn="ssn", history={"a": 1}, scan=b"scan", remark="remark")
    use(settings, "eu", "us-west-2", "ap_south")
    suffix: str = request.param
    return suffix


def require_all(clinic: Clinic) -> None:
    """Read every value, in every way."""
    assert [note.body for note in Note.objects.all()] == ["note"]
    (compact,) = Compact.objects.all()
    assert (compact.body, compact.doc, compact.apart) == ("body", ["doc"], "apart")
    assert (compact.json_bytes, compact.plain) == ("json", "plain")
    (patient,) = Patient.objects.all()
    assert (patient.ssn, patient.history, patient.scan, patient.remark) == ("ssn", {"a": 1}, b"scan", "remark")
    assert Compact.objects.values_list("body", "plain").get() == ("body", "plain")
    assert Patient.objects.values_list("ssn", "clinic_id").get() == ("ssn", clinic.pk)
    assert Compact.objects.defer("body").get().body == "body"


def test_every_field_reads_it(written: str, clinic: Clinic) -> None:
    for _ in range(2):
        require_all(clinic)
    assert {each for each in ids() if not each.endswith(f"_suite_tests{'_' * bool(written)}{written}")} == set()
    engine.reset()
    with partition_guard("default", "left", f"clinic-{clinic.pk}"):
        assert Compact.objects.get().apart == "apart"
        assert Patient.objects.get().scan == b"scan"
    with partition_guard("default"), pytest.raises(PartitionMismatchError):
        _ = Compact.objects.get().apart


def test_a_suffix_that_is_not_named_is_refused(settings: Settings) -> None:
    use(settings, "us-west-2")
    Compact.objects.create(body="body", plain="plain")
    use(settings, "eu", "us-west", "us-west-2x")
    for name in ("body", "plain"):
        with pytest.raises(PartitionMismatchError):
            getattr(Compact.objects.get(), name)


def test_what_is_saved_unread_stays_as_it_is_and_what_is_changed_gets_the_own_key(written: str, clinic: Clinic) -> None:
    compact, patient = Compact.objects.get(), Patient.objects.get()
    before = record_of(compact, "body"), record_of(patient, "ssn")
    compact.plain = "changed"
    patient.scan = b"changed"
    compact.save()
    patient.save()
    assert (record_of(compact, "body"), record_of(patient, "ssn")) == before
    field: Any = Compact._meta.get_field("plain")
    assert field.key_of(record_of(compact, "plain")).key_id == key_id("default", "eu")
    scan: Any = Patient._meta.get_field("scan")
    assert scan.key_of(record_of(patient, "scan"), f"clinic-{clinic.pk}").key_id == key_id(f"clinic-{clinic.pk}", "eu")
    assert (Compact.objects.get().body, Patient.objects.get().ssn) == ("body", "ssn")


def test_verify_proves_data_and_keys(written: str, run: Run) -> None:
    count = len(ids())
    document = run("asherah_verify", "--data")
    assert (document["code"], document["problems"]) == (0, [])
    report = lifecycle.verify_keys()
    assert (report.problems, report.system_keys + report.intermediate_keys) == ([], count)
    assert lifecycle.verify_key(KeyMeta(*_newest(key_id("default", written)))).problems == []


def _newest(key_id: str) -> tuple[str, int]:
    (key,) = (key for key in lifecycle.list_keys() if key.meta.key_id == key_id)
    return key_id, key.meta.created


def test_reencrypt_brings_all_under_the_own_keys_without_moved(
    written: str, clinic: Clinic, run: Run, settings: Settings
) -> None:
    dry = run("asherah_reencrypt", "--dry-run")
    document = run("asherah_reencrypt")
    assert (document["code"], document["problems"]) == (0, [])
    assert document["summary"]["moved"] == {}
    assert document["summary"]["rewritten"] == dry["summary"]["rewritten"]
    assert document["summary"]["rewritten"]["testapp.Compact.body"] == 1
    assert document["summary"]["rewritten"]["testapp.Patient.scan"] == 1
    again = run("asherah_reencrypt")
    assert (again["code"], again["summary"]["rewritten"]) == (0, {})
    require_all(clinic)
    for row in EncryptionKey.objects.all():
        if not row.key_id.endswith("_eu"):
            row.delete()
    engine.reset()
    require_all(clinic)
    assert run("asherah_verify", "--data")["code"] == 0


def test_another_partitions_record_of_another_suffix_is_moved_only_when_asked(settings: Settings, run: Run) -> None:
    use(settings, "us-west-2")
    one, two = clinics(2)
    patient = Patient.objects.create(clinic=one, ssn="ssn", history={}, scan=b"scan")
    use(settings, "eu", "us-west-2")
    Patient.objects.update(clinic=two)
    left = run("asherah_reencrypt", "testapp.Patient")
    assert (left["code"], left["summary"]["bad"], left["summary"]["moved"]) == (1, 3, {})
    records = [record_of(patient, "scan"), record_of(patient, "ssn")]
    assert [origin.partition for origin in Origins().find(records)] == [f"clinic-{one.pk}"] * 2
    moved = run("asherah_reencrypt", "testapp.Patient", "--moved")
    assert (moved["code"], sum(moved["summary"]["moved"].values())) == (0, 3)
    assert (Patient.objects.get().ssn, Patient.objects.get().scan) == ("ssn", b"scan")


def test_a_suffix_that_is_not_read_has_no_origin(settings: Settings) -> None:
    use(settings, "us-west-2")
    note, compact = Note.objects.create(body="x"), Compact.objects.create(body="x")
    records = [record_of(note, "body"), record_of(compact, "body")]
    use(settings, "eu")
    meta = KeyMeta(*_newest(key_id("default", "us-west-2")))
    assert Origins().find(records) == [Origin(meta, None), Origin(None, None)]


def test_status_counts_what_new_writes_use_and_lists_what_is_read(written: str, clinic: Clinic, run: Run) -> None:
    before = run("asherah_status")
    assert (before["summary"]["current_system_key"], before["summary"]["keys_of_others"]) == (None, 0)
    assert (before["summary"]["partitions"], before["summary"]["next_expiry"]) == (0, None)
    Note.objects.create(body="ours")
    after = run("asherah_status")
    assert after["summary"]["current_system_key"].startswith("_SK_suite_tests_eu created ")
    assert after["summary"]["partitions"] == 1
    assert {item["key_id"] for item in after["items"]} == ids()
    found = run("asherah_status", "--partition", f"clinic-{clinic.pk}")
    assert [item["key_id"] for item in found["items"]] == [key_id(f"clinic-{clinic.pk}", written)]
    text, code = run.text("asherah_status")
    assert code == 0
    assert key_id("default", written) in text


@pytest.mark.parametrize("options", [(), ("--expired",), ("--resume",)])
def test_rotate_makes_keys_of_the_own_suffix_alone(written: str, run: Run, options: tuple[str, ...]) -> None:
    for meta in [key.meta for key in lifecycle.list_keys()]:
        lifecycle.revoke(meta.key_id, meta.created)
    Note.objects.create(body="ours")
    before = {(row.key_id, row.created) for row in EncryptionKey.objects.all()}
    assert run("asherah_rotate", *options)["code"] == 0
    made = {(row.key_id, row.created) for row in EncryptionKey.objects.all()} - before
    wanted = {"_SK_suite_tests_eu", "_IK_default_suite_tests_eu"} if not options else set()
    assert {key_id for key_id, _ in made} == wanted


def test_a_key_of_another_suffix_can_be_revoked(written: str, clinic: Clinic, run: Run) -> None:
    system_id = f"_SK_suite_tests{'_' * bool(written)}{written}"
    report = lifecycle.revoke(system_id)
    assert report.changed
    assert {"default", "left", f"clinic-{clinic.pk}"} <= set(report.partitions)
    require_all(clinic)


def test_rewrap_takes_the_system_keys_of_every_suffix_that_is_read(regional: Any, settings: Settings, run: Run) -> None:
    regional({"one": "arn-1"})
    base = settings.ASHERAH
    for suffix in ("", "us", "eu", "unread"):
        settings.ASHERAH = {**base, "KEY_SUFFIX": suffix}
        Note.objects.create(body=suffix)
    regional()
    settings.ASHERAH = {**settings.ASHERAH, "KEY_SUFFIX": "eu", "READ_SUFFIXES": ["us"]}
    wrong = {key.meta.key_id for key in lifecycle.list_keys() if key.problems}
    document = run("asherah_rewrap")
    assert document["code"] == 0
    assert [item["key_id"] for item in document["items"]] == [
        "_SK_suite_tests_eu",
        "_SK_suite_tests",
        "_SK_suite_tests_us",
    ]
    assert wrong == {item["key_id"] for item in document["items"]}
    assert {key.meta.key_id: set(key.regions) for key in lifecycle.list_keys() if key.regions} == {
        "_SK_suite_tests": {"one", "two"},
        "_SK_suite_tests_us": {"one", "two"},
        "_SK_suite_tests_eu": {"one", "two"},
        "_SK_suite_tests_unread": {"one"},
    }
    assert run("asherah_rewrap", "--dry-run")["items"] == []


def test_a_file_of_another_suffix_opens(settings: Settings) -> None:
    storage = EncryptedStorage(storage=InMemoryStorage())
    use(settings, "us-west-2")
    name = storage.save("file", ContentFile(b"content" * 20_000))
    use(settings, "eu", "us-west-2")
    with storage.open(name) as file:
        assert file.read() == b"content" * 20_000
    assert storage.size(name) == 140_000
    use(settings, "eu")
    with pytest.raises(PartitionMismatchError):
        storage.open(name).read()


def test_the_admin_shows_whose_key_it_is(written: str, clinic: Clinic, client: Client) -> None:
    Note.objects.create(body="ours")
    client.force_login(User.objects.create_superuser("root"))
    page = client.get(LIST).content.decode()
    assert "another service" not in page
    assert page.count(f"clinic-{clinic.pk}") >= 2
    row = EncryptionKey.objects.get(key_id=key_id("default", written))
    assert client.get(f"{LIST}{row.pk}/change/").status_code == 200


def test_a_row_that_moves_to_another_tenant_takes_its_values_along(written: str, clinic: Clinic) -> None:
    patient, other = Patient.objects.get(), clinics(1)[0]
    patient.clinic = other
    patient.save()
    saved = Patient.objects.get()
    assert (saved.ssn, saved.history, saved.scan) == ("ssn", {"a": 1}, b"scan")
    for name in ("ssn", "scan"):
        field: Any = Patient._meta.get_field(name)
        found = field.key_of(record_of(saved, name), f"clinic-{other.pk}")
        assert found.key_id == key_id(f"clinic-{other.pk}", "eu")
