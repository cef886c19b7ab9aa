"""Re-encrypt: records of another partition than their row says, and whose they may be."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from django.db import connection

from django_asherah import engine, lifecycle
from django_asherah.envelope.session import SessionFactory
from django_asherah.exceptions import MetastoreError
from django_asherah.lifecycle.origins import Origin, Origins
from django_asherah.lifecycle.reencryption import Options
from django_asherah.lifecycle.sharding import run_shard, split
from django_asherah.metastores.key_table import KeyRow
from django_asherah.models import EncryptionKey
from tests.databases import close_connections
from tests.fields.helpers import raw, set_raw
from tests.lifecycle import stores
from tests.lifecycle.conftest import Run
from tests.lifecycle.tenants import clinics
from tests.lifecycle.test_reencrypt import insist
from tests.testapp.models import Compact, Note, Patient, Tenancy

pytestmark = pytest.mark.django_db(transaction=True)

MOVED = Options(moved=True)


def another_factory(service: str, product: str, suffix: str = "") -> SessionFactory:
    """Return an engine of somebody else over the same key table and KMS."""
    ours = engine.get_factory()
    return SessionFactory(service, product, ours.metastore, ours.kms, key_suffix=suffix)


def test_the_command_moves_and_says_so(run: Run) -> None:
    one, two = clinics(2)
    Patient.objects.create(clinic=one, ssn="1", history={"a": 1}, scan=b"x", remark="r")
    Patient.objects.create(clinic=two, ssn="2", history={})
    Patient.objects.filter(clinic=one).update(clinic=two)
    left = run("asherah_reencrypt", "testapp.Patient")
    assert (left["code"], left["summary"]["bad"], left["summary"]["moved"]) == (1, 3, {})
    document = run("asherah_reencrypt", "testapp.Patient", "--moved")
    assert (document["code"], document["summary"]["moved"]) == (
        0,
        {"testapp.Patient.ssn": 1, "testapp.Patient.history": 1, "testapp.Patient.scan": 1},
    )
    patient = Patient.objects.order_by("pk")[0]
    assert (patient.ssn, patient.history, patient.scan, patient.remark) == ("1", {"a": 1}, b"x", "r")
    assert run("asherah_verify", "--data", "testapp.Patient")["code"] == 0
    Patient.objects.filter(ssn__isnull=False).update(clinic=one)
    text, code = run.text("asherah_reencrypt", "testapp.Patient.ssn", "--moved")
    assert code == 0
    assert "testapp.Patient.ssn: 2 of these were another partition's." in text


def test_the_tasks_of_a_queue_move_too() -> None:
    one, two = clinics(2)
    Patient.objects.create(clinic=one, ssn="1")
    Patient.objects.update(clinic=two)
    (shard,) = split(["testapp.Patient.ssn"], shards=1, options=MOVED)
    assert run_shard(**shard) == {"rewritten": 1, "current": 0, "bad": 0}
    assert Patient.objects.get().ssn == "1"
    # One that was enqueued by a release that had no such option.
    del shard["moved"]
    assert run_shard(**shard) == {"rewritten": 0, "current": 1, "bad": 0}


def test_a_record_of_a_fields_own_partition_is_moved_too() -> None:
    row = Tenancy.objects.create(left="l", right="r")
    set_raw(row, "left", raw(row, "right"))
    (bad,) = lifecycle.verify_data(["testapp.Tenancy.left"]).bad
    assert bad.reason.startswith(
        "PartitionMismatchError: the record is of partition 'right', but the field's partition is 'left'. If "
    )
    assert lifecycle.reencrypt(["testapp.Tenancy.left"], options=MOVED).moved == {"testapp.Tenancy.left": 1}
    row.refresh_from_db()
    assert row.left == "r"


@pytest.mark.parametrize(
    ("service", "product", "suffix"),
    [
        ("other", "tests", ""),
        ("suite", "other", ""),
        ("suite", "tests", "eu"),
        ("a_suite", "tests", ""),
        ("suite_tests", "x", ""),
    ],
)
@pytest.mark.parametrize("model", [Note, Compact])
def test_nothing_of_another_service_product_or_suffix_is_ever_moved(
    model: Any, service: str, product: str, suffix: str
) -> None:
    row = model.objects.create(body="x")
    theirs = another_factory(service, product, suffix).get_session("p")
    foreign: Any = theirs.encrypt_compact(b"theirs") if model is Compact else theirs.encrypt(b"theirs")
    set_raw(row, "body", foreign)
    report = lifecycle.reencrypt([f"{model._meta.label}.body"], options=MOVED)
    assert (report.rewritten.total(), report.bad.total) == (0, 1)
    key = "a key that is" if model is Compact else f"key {theirs.newest_key().meta}, which is"
    assert report.bad[0].reason == (
        f"PartitionMismatchError: the record names {key} not in the key table as one of this service and product, and "
        "the field's partition is 'default': put the row's own value here, from a backup"
    )
    assert bytes(raw(row, "body")) == foreign if model is Compact else raw(row, "body") == foreign


@pytest.mark.parametrize("damage", ["a key that is gone", "a flipped bit"])
@pytest.mark.parametrize("name", ["ssn", "scan"])
def test_a_record_that_does_not_open_is_left(name: str, damage: str) -> None:
    one, two = clinics(2)
    patient = Patient.objects.create(clinic=one, ssn="1", scan=b"1")
    Patient.objects.update(clinic=two)
    if damage == "a flipped bit":
        stored = raw(patient, name)
        set_raw(patient, name, stored[:-6] + "AAA" + stored[-3:] if name == "ssn" else bytes(stored)[:-1] + b"\0")
    else:
        EncryptionKey.objects.filter(key_id__contains=f"clinic-{one.pk}_").delete()
    before = raw(patient, name)
    report = lifecycle.reencrypt([f"testapp.Patient.{name}"], options=MOVED)
    assert (report.rewritten.total(), report.moved.total(), report.bad.total) == (0, 0, 1)
    assert raw(patient, name) == before


class CountingMetastore(stores.ListingMetastore):
    """One that counts how often all of its keys are listed."""

    scans = 0

    def scan(self) -> Iterator[KeyRow]:
        self.scans += 1
        return super().scan()


class TestFingerprints:
    """A compact record does not name its partition."""

    @pytest.fixture
    def metastore(self, settings: Any) -> CountingMetastore:
        metastore = CountingMetastore()
        settings.ASHERAH = {**settings.ASHERAH, **stores.use(metastore)}
        return metastore

    def scattered(self, count: int) -> list[bytes]:
        """Return compact records of so many partitions."""
        return [engine.get_session(f"p{number}").encrypt_compact(b"x") for number in range(count)]

    def test_the_keys_are_listed_once_for_all_batches(self, metastore: CountingMetastore) -> None:
        move_scans(6)
        report = lifecycle.reencrypt(["testapp.Patient.scan"], options=Options(moved=True, batch=2))
        assert (report.moved, report.bad, metastore.scans) == ({"testapp.Patient.scan": 6}, [], 1)
        assert [patient.scan for patient in Patient.objects.all()] == [b"x"] * 6

    def test_where_nothing_has_moved_they_are_not(self, metastore: CountingMetastore) -> None:
        for clinic in clinics(3):
            Patient.objects.create(clinic=clinic, scan=b"x")
        assert (lifecycle.verify_data(["testapp.Patient.scan"]).bad, metastore.scans) == ([], 0)

    def test_more_keys_than_are_remembered_are_listed_again(self, metastore: CountingMetastore) -> None:
        records, found = self.scattered(9), Origins(most_known=2)
        for start in range(0, 9, 3):
            partitions = [origin.partition for origin in found.find(records[start : start + 3])]
            assert partitions == [f"p{number}" for number in range(start, start + 3)]
        assert metastore.scans in {2, 3}  # What there was room for may be wanted later.

    def test_a_fingerprint_of_no_key_is_looked_for_once(self, metastore: CountingMetastore) -> None:
        record, found = self.scattered(1)[0], Origins()
        wrong = record[:6] + bytes(6) + record[12:]
        assert [found.find([wrong]) for _ in range(2)] == [[Origin(None, None)]] * 2
        assert metastore.scans == 1

    def test_a_metastore_that_lists_no_keys_can_not_tell(self, settings: Any) -> None:
        settings.ASHERAH = {**settings.ASHERAH, **stores.use(stores.OwnMetastore())}
        move_scans(1)
        with pytest.raises(MetastoreError, match="can't list its keys"):
            lifecycle.reencrypt(["testapp.Patient.scan"], options=MOVED)

    def test_it_is_not_asked_for_them_otherwise(self, settings: Any) -> None:
        settings.ASHERAH = {**settings.ASHERAH, **stores.use(stores.OwnMetastore())}
        one, two = clinics(2)
        Patient.objects.create(clinic=one, ssn="1", scan=b"1")
        assert lifecycle.verify_data(["testapp.Patient"]).bad == []
        Patient.objects.update(clinic=two)
        assert lifecycle.reencrypt(["testapp.Patient.ssn"], options=MOVED).moved == {"testapp.Patient.ssn": 1}


def move_scans(count: int) -> None:
    """Leave compact records of many clinics in rows of one."""
    *others, last = clinics(count + 1)
    for clinic in others:
        Patient.objects.create(clinic=clinic, scan=b"x")
    Patient.objects.update(clinic=last)


def test_writers_that_move_rows_without_pause_lose_nothing() -> None:
    """Each writer moves its own row to and fro, and counts up; a lost update or a stray record would show."""
    tenants = clinics(3)
    rows = [Patient.objects.create(clinic=tenants[0], ssn="0", history={"n": 0}, scan=b"0") for _ in range(4)]
    stop = threading.Event()
    written = [0] * len(rows)
    failures: list[BaseException] = []

    def move(place: int) -> None:
        try:
            while not stop.is_set() or written[place] < 5:
                patient = insist(lambda: Patient.objects.get(pk=rows[place].pk))
                assert patient.ssn == str(written[place])
                number = written[place] + 1
                patient.clinic = tenants[number % 3]
                patient.ssn, patient.history = str(number), {"n": number}
                insist(patient.save)
                written[place] = number
        except BaseException as exc:
            failures.append(exc)
        finally:
            close_connections()

    threads = [threading.Thread(target=move, args=(place,)) for place in range(len(rows))]
    for thread in threads:
        thread.start()
    try:
        for _ in range(8):
            insist(lifecycle.rotate)
            report = insist(lambda: lifecycle.reencrypt(["testapp.Patient"], options=Options(batch=2)))
            assert report.bad == []
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert lifecycle.verify_data(["testapp.Patient"]).bad == []
    assert [(row.ssn, row.history, row.scan) for row in Patient.objects.order_by("pk")] == [
        (str(count), {"n": count}, b"0") for count in written
    ]


def test_rows_that_update_moves_without_pause_are_sealed_for_where_they_end() -> None:
    tenants = clinics(3)
    for number in range(6):
        Patient.objects.create(clinic=tenants[0], ssn=str(number), scan=b"%d" % number)
    stop = threading.Event()
    failures: list[BaseException] = []

    def move() -> None:
        turn = 0
        try:
            while not stop.is_set():
                turn += 1
                insist(partial(Patient.objects.update, clinic=tenants[turn % 3]))
        except BaseException as exc:
            failures.append(exc)
        finally:
            close_connections()

    thread = threading.Thread(target=move)
    thread.start()
    try:
        for _ in range(10):
            insist(lambda: lifecycle.reencrypt(["testapp.Patient"], options=Options(moved=True, batch=4)))
    finally:
        stop.set()
        thread.join()
    assert failures == []
    report = lifecycle.reencrypt(["testapp.Patient"], options=MOVED)
    assert report.bad == []
    assert lifecycle.verify_data(["testapp.Patient"]).bad == []
    assert [(row.ssn, row.scan) for row in Patient.objects.order_by("pk")] == [(str(n), b"%d" % n) for n in range(6)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.skipif(connection.vendor == "sqlite", reason="a database in memory is not shared")
def test_several_processes_find_the_same(run: Run) -> None:
    tenants = clinics(7)
    for number in range(70):
        Patient.objects.create(clinic=tenants[number % 7], ssn="x", scan=b"x")
    Patient.objects.filter(clinic=tenants[0]).update(clinic=tenants[1])
    one = run("asherah_verify", "--data", "testapp.Patient")
    many = run("asherah_verify", "--data", "testapp.Patient", "--parallel", "3")
    assert (one["summary"], one["items"]) == (many["summary"], many["items"])
    assert one["summary"]["bad"] == 30
