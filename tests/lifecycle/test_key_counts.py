"""How many values need each key, in constant memory."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from typing import Any

import pytest

from django_asherah import engine, lifecycle
from django_asherah.envelope.records import KeyMeta
from django_asherah.lifecycle.key_counts import MOST_COUNTED, KeyCounts
from tests.databases import execute
from tests.lifecycle.conftest import Run
from tests.memory import peak_of
from tests.testapp.models import Clinic


def values(keys: int, seed: int) -> list[KeyMeta]:
    """Return the keys of some values, in no order: there are fewer moments than keys."""
    chance = random.Random(seed)
    return [KeyMeta(f"_IK_{chance.randrange(keys)}", 60 * chance.randrange(keys // 3)) for _ in range(4 * keys)]


def counted(metas: list[KeyMeta]) -> KeyCounts:
    counts = KeyCounts()
    for meta in metas:
        counts.add(meta)
    return counts


def by_age(meta: KeyMeta) -> tuple[int, str]:
    return meta.created, meta.key_id


def assert_exact(counts: KeyCounts, metas: list[KeyMeta]) -> None:
    counts.cut()
    everything = Counter(metas)
    oldest = sorted(everything, key=by_age)
    assert counts == {meta: everything[meta] for meta in oldest[:MOST_COUNTED]}
    assert counts.uncounted == sum(everything[meta] for meta in oldest[MOST_COUNTED:])
    assert counts.uncounted_since == (oldest[MOST_COUNTED].created if len(oldest) > MOST_COUNTED else None)


@pytest.mark.parametrize("keys", [30, 900, 3000])
def test_the_oldest_keys_are_counted_exactly(keys: int) -> None:
    metas = values(keys, seed=keys)
    assert_exact(counted(metas), metas)


@pytest.mark.parametrize("keys", [30, 700, 3000])
def test_what_several_processes_count_adds_up_to_the_same(keys: int) -> None:
    parts = [values(keys, seed) for seed in range(3)]
    counts = KeyCounts()
    for part in parts:
        counts.merge(pickle.loads(pickle.dumps(counted(part))))
    assert_exact(counts, [meta for part in parts for meta in part])


def test_one_that_counts_little_after_one_that_counts_much() -> None:
    many, few = values(4000, 1), values(30, 2)
    counts = counted(few)
    counts.merge(counted(many))
    assert_exact(counts, few + many)


@pytest.mark.django_db(transaction=True)
class TestReport:
    @pytest.fixture(autouse=True)
    def _quick(self, settings: Any) -> None:
        settings.ASHERAH = {**settings.ASHERAH, "METASTORE": "memory"}

    def test_of_very_many_keys_the_oldest_are_listed_and_the_others_are_a_number(self, run: Run) -> None:
        save_patients(MOST_COUNTED + 5)
        document = run("asherah_verify", "--data", "testapp.Patient.ssn")
        summary = document["summary"]
        assert (document["code"], summary["opened"]) == (0, {"testapp.Patient.ssn": MOST_COUNTED + 5})
        assert set(summary["values_by_key"].values()) == {1}
        assert (len(summary["values_by_key"]), summary["values_by_newer_keys"]) == (MOST_COUNTED, 5)
        assert list(summary["values_by_system_key"].values()) == [MOST_COUNTED + 5]
        created = {int(name.rpartition(" ")[2]) for name in summary["values_by_key"]}
        assert max(created) <= summary["newer_keys_since"]
        text, _ = run.text("asherah_verify", "--data", "testapp.Patient.ssn")
        assert (
            f"Needed: keys created at {summary['newer_keys_since']} and later that are not listed, by 5 values." in text
        )

    @pytest.mark.slow
    @pytest.mark.memory
    def test_memory_does_not_grow_with_the_partitions(self) -> None:
        save_patients(3000)
        report, small = peak_of(lambda: lifecycle.verify_data(["testapp.Patient.ssn"]))
        assert report.bad.total == 0
        save_patients(6000)
        report, large = peak_of(lambda: lifecycle.verify_data(["testapp.Patient.ssn"]))
        assert report.bad.total == 0
        assert large < small * 1.2


def save_patients(count: int) -> None:
    """Save a patient of a new clinic each."""
    clinics = Clinic.objects.bulk_create(Clinic() for _ in range(count))
    sessions = (engine.get_session(f"clinic-{clinic.pk}") for clinic in clinics)
    rows = [(clinic.pk, session.encrypt(b"1")) for clinic, session in zip(clinics, sessions, strict=True)]
    for start in range(0, count, 500):
        part = rows[start : start + 500]
        places = ", ".join(["(%s, '', %s, '')"] * len(part))
        execute(
            "default",
            f"INSERT INTO testapp_tenants_patient (clinic_id, name, ssn, history) VALUES {places}",
            [each for row in part for each in row],
        )
