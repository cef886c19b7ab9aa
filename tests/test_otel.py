"""Metrics, read back through OpenTelemetry's own SDK."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from pytest_django import Settings as DjangoSettings

from django_asherah import engine, otel
from django_asherah.envelope.session import Session
from django_asherah.exceptions import DecryptionError, KMSError
from django_asherah.metastores.memory import MemoryMetastore
from tests.databases import as_asherah
from tests.moto_servers import ACCESS, MotoRegion, failing_as, moto_region

Attributes = tuple[tuple[str, Any], ...]
METASTORE = MemoryMetastore()


def same_metastore(settings: object) -> MemoryMetastore:
    """Outlives the factory, as a database does."""
    return METASTORE


class Measured:
    """What the SDK has collected."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])

    def points(self, name: str) -> dict[Attributes, Any]:
        """Return a metric's data points by their attributes."""
        data = self._reader.get_metrics_data()
        return {
            tuple(sorted(point.attributes.items())): point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        }

    def counts(self, name: str) -> dict[str, int]:
        """Return a metric's counts by the values of their attributes."""
        return {
            " ".join(str(value) for _, value in attributes): getattr(point, "value", getattr(point, "count", None))
            for attributes, point in self.points(name).items()
        }


@pytest.fixture
def measured(settings: DjangoSettings) -> Iterator[Measured]:
    METASTORE.records.clear()
    settings.ASHERAH = as_asherah(METASTORE="tests.test_otel.same_metastore")
    measured = Measured()
    otel.instrument(measured.provider)
    yield measured
    otel.uninstrument()
    measured.provider.shutdown()


@pytest.fixture(scope="module")
def west() -> Iterator[MotoRegion]:
    with moto_region("us-west-2") as server:
        yield server


def test_values_are_counted(measured: Measured) -> None:
    session = engine.get_session()
    texts = [session.encrypt(b"x") for _ in range(5)]
    for text in texts[:3]:
        session.decrypt(text)

    assert measured.counts("django_asherah.operations") == {"encrypt ok": 5, "decrypt ok": 3}


def test_compact_values_and_files_are_counted(measured: Measured) -> None:
    session = engine.get_session()
    session.decrypt(session.encrypt_compact(b"x"))
    record, _ = session.start_file()
    session.open_file(record)

    assert measured.counts("django_asherah.operations") == {"encrypt ok": 2, "decrypt ok": 2}


def test_what_fails_is_counted_by_the_class_of_its_error(measured: Measured) -> None:
    record = engine.get_session().encrypt(b"x")
    sealed = record.rpartition('"Data":"')[2]
    for bad in ("no record", record.replace("_default_", "_other_"), record.replace(sealed[:4], "AAAA")):
        with pytest.raises(DecryptionError):
            engine.get_session().decrypt(bad)

    assert measured.counts("django_asherah.operations") == {
        "encrypt ok": 1,
        "InvalidRecordError decrypt error": 1,
        "PartitionMismatchError decrypt error": 1,
        "DecryptionError decrypt error": 1,
    }


def test_hits_and_misses_of_the_key_cache_are_counted(measured: Measured) -> None:
    session = engine.get_session()
    record = session.encrypt(b"x")  # Asks for both keys, and makes them.
    session.decrypt(record)
    session.decrypt(record)
    engine.reset()
    engine.get_session().decrypt(record)  # Asks for both again.

    assert measured.counts("django_asherah.key_cache.lookups") == {
        "intermediate miss": 2,
        "system miss": 2,
        "intermediate hit": 2,
    }


@pytest.mark.slow
def test_kms_calls_are_timed_by_region_and_outcome(
    measured: Measured, settings: DjangoSettings, west: MotoRegion
) -> None:
    import boto3

    with failing_as("AccessDeniedException") as east:
        settings.ASHERAH = as_asherah(
            METASTORE="tests.test_otel.same_metastore",
            KMS="aws",
            REGIONS={west.region: west.arn, "us-east-1": west.arn.replace("us-west-2", "us-east-1")},
            PREFERRED_REGION=west.region,
            KMS_OPTIONS={
                "endpoint_urls": {west.region: west.url, "us-east-1": east.url},
                "session": boto3.Session(**ACCESS),
            },
        )
        record = engine.get_session().encrypt(b"x")
        engine.reset()
        engine.get_session().decrypt(record)
        METASTORE.records.clear()
        engine.reset()
        west_arn = settings.ASHERAH["REGIONS"][west.region]
        settings.ASHERAH = {
            **settings.ASHERAH,
            "REGIONS": {"us-east-1": west_arn.replace("us-west-2", "us-east-1")},
            "PREFERRED_REGION": "us-east-1",
            "KMS_OPTIONS": {"endpoint_urls": {"us-east-1": east.url}, "session": boto3.Session(**ACCESS)},
        }
        with pytest.raises(KMSError):
            engine.get_session().encrypt(b"x")

    points = measured.points("django_asherah.kms.duration")
    seen = {tuple(value for _, value in attributes): point.count for attributes, point in points.items()}
    assert seen == {
        ("us-west-2", "GenerateDataKey", "ok"): 1,
        ("us-west-2", "Decrypt", "ok"): 2,
        ("us-east-1", "AccessDeniedException", "Encrypt", "error"): 1,
        ("us-east-1", "AccessDeniedException", "GenerateDataKey", "error"): 1,
    }
    assert all(0 < point.sum < 30 and point.explicit_bounds == otel.BUCKETS for point in points.values())


def test_fields_are_counted_as_well(measured: Measured, db: None) -> None:
    from tests.testapp.models import Note

    # Not save(): from Django 6.1 on it asks a field twice for the value of a new row.
    Note.objects.bulk_create([Note(body="secret", other_body="another")])
    note = Note.objects.get()
    assert measured.counts("django_asherah.operations") == {"encrypt ok": 2}
    assert (note.body, note.other_body, note.body) == ("secret", "another", "secret")

    assert measured.counts("django_asherah.operations") == {"encrypt ok": 2, "decrypt ok": 2}


def test_what_is_not_instrumented_is_no_slower(settings: DjangoSettings) -> None:
    """No code stands in the way of a session that nobody watches, and none is left when the watching ends."""
    settings.ASHERAH = as_asherah(METASTORE="memory")
    assert type(engine.get_session()) is Session
    measured = Measured()
    otel.instrument(measured.provider)
    assert type(engine.get_session()) is not Session
    otel.uninstrument()
    assert type(engine.get_session()) is Session
    engine.get_session().encrypt(b"x")
    assert measured.counts("django_asherah.operations") == {}


def test_instrumenting_twice_counts_once(measured: Measured) -> None:
    otel.instrument(measured.provider)
    engine.get_session().encrypt(b"x")

    assert measured.counts("django_asherah.operations") == {"encrypt ok": 1}


def test_every_way_to_encrypt_or_decrypt_is_watched(measured: Measured) -> None:
    """Fails when ``Session`` gets a public method that seals or opens and that ``otel`` does not know."""
    seals_and_opens_nothing = {"read", "to_json", "newest_key", "tell_refused"}
    by_another_call = {"aencrypt", "aencrypt_compact", "adecrypt"}
    watched = vars(type(engine.get_session()))
    public = {name for name, member in vars(Session).items() if callable(member) and not name.startswith("_")}
    assert public - seals_and_opens_nothing - by_another_call <= watched.keys()
