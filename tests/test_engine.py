"""The composition root: one factory a process, made from the settings, that survives threads and forks."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import request_started, setting_changed
from django.dispatch import Signal
from pytest_django import Settings as DjangoSettings

from django_asherah import engine, signals
from django_asherah.audit import actor
from django_asherah.conf import Settings
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta
from django_asherah.envelope.session import SessionFactory
from django_asherah.exceptions import EncryptionError, KeyNotFoundError, KMSError, MetastoreError
from django_asherah.kms.static import StaticKMS
from django_asherah.metastores.database import DatabaseMetastore
from django_asherah.metastores.memory import MemoryMetastore
from tests.databases import VENDOR, as_asherah, run_django, url_of
from tests.forking import FORKS

IK = "_IK_default_suite_tests"
SK = "_SK_suite_tests"
AWS = {
    "SERVICE": "suite",
    "PRODUCT": "tests",
    "REGIONS": {
        "us-west-2": "arn:aws:kms:us-west-2:111122223333:key/west",
        "us-east-1": "arn:aws:kms:us-east-1:111122223333:key/east",
    },
    "PREFERRED_REGION": "us-east-1",
    "METASTORE": "memory",
}


class CountingKMS(StaticKMS):
    """A KMS of the user's own, named by a dotted path: counts how often it is made and called."""

    calls: ClassVar[Counter[str]] = Counter()

    def __init__(self, settings: Settings) -> None:
        super().__init__(b"k" * 32)
        self.settings = settings
        self.calls["made"] += 1

    def encrypt_key(self, key: bytes | bytearray) -> bytes:
        self.calls["wrapped"] += 1
        return super().encrypt_key(key)


class BreakableMetastore(MemoryMetastore):
    """A metastore of the user's own."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.broken: MetastoreError | None = None

    def load_latest(self, key_id: str) -> EnvelopeKeyRecord | None:
        if self.broken is not None:
            raise self.broken
        return super().load_latest(key_id)

    def load(self, meta: KeyMeta) -> EnvelopeKeyRecord | None:
        if self.broken is not None:
            raise self.broken
        return super().load(meta)


@pytest.fixture(autouse=True)
def in_memory(settings: DjangoSettings) -> None:
    settings.ASHERAH = as_asherah(METASTORE="memory")


@contextmanager
def received(signal: Signal) -> Iterator[list[dict[str, Any]]]:
    """Collect what is sent, without the signal itself."""
    seen: list[dict[str, Any]] = []

    def receive(signal: Signal, **arguments: Any) -> None:
        seen.append(arguments)

    signal.connect(receive)
    try:
        yield seen
    finally:
        signal.disconnect(receive)


def at_once(work: Callable[[int], Any], threads: int) -> list[Any]:
    """Run ``work`` in that many threads that start together."""
    barrier = threading.Barrier(threads)

    def run(number: int) -> Any:
        barrier.wait(30)
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        return [future.result(60) for future in [pool.submit(run, number) for number in range(threads)]]


class TestOneFactory:
    def test_sixty_four_threads_make_one_factory_and_one_system_key(self, settings: DjangoSettings) -> None:
        settings.ASHERAH = as_asherah(METASTORE="memory", KMS="tests.test_engine.CountingKMS", KMS_OPTIONS={})
        CountingKMS.calls.clear()

        records = at_once(lambda number: engine.get_session(f"p{number % 4}").encrypt(b"x"), 64)

        assert CountingKMS.calls == {"made": 1, "wrapped": 1}
        assert [engine.get_session(f"p{n % 4}").decrypt(record) for n, record in enumerate(records)] == [b"x"] * 64

    def test_the_same_partition_has_the_same_session(self) -> None:
        assert engine.get_session("a") is engine.get_session("a")
        assert engine.get_session("a") is not engine.get_session("b")
        assert engine.get_session() is engine.get_session("default")

    def test_a_session_is_a_context_manager(self) -> None:
        with engine.get_session("tenant-7") as session:
            record = session.encrypt(b"bytes")

        assert engine.get_session("tenant-7").decrypt(record) == b"bytes"

    def test_an_impossible_partition_is_refused(self) -> None:
        with pytest.raises(EncryptionError, match="must not be empty"):
            engine.get_session("")


class TestWhatTheSettingsBecome:
    def test_the_policy_and_the_names_reach_the_engine(self, settings: DjangoSettings) -> None:
        settings.ASHERAH = as_asherah(
            METASTORE="memory",
            KEY_SUFFIX="us-west-2",
            EXPIRE_KEY_AFTER=timedelta(days=2),
            REVOKE_CHECK_INTERVAL=timedelta(seconds=90),
        )
        factory = engine.get_factory()

        assert factory.system_key_id == "_SK_suite_tests_us-west-2"
        assert engine.get_session().partition.intermediate_key_id == "_IK_default_suite_tests_us-west-2"
        assert factory.policy.expire_after == 2 * 86_400
        assert factory.policy.revoke_check_interval == 90
        assert factory.policy.created_precision == 60

    def test_the_cache_holds_as_many_keys_as_it_was_given(self, settings: DjangoSettings) -> None:
        settings.ASHERAH = as_asherah(METASTORE="memory", KEY_CACHE_SIZE=1)
        first = engine.get_session("a").encrypt(b"first")
        engine.get_session("b").encrypt(b"evicts")

        engine.get_factory().metastore.records.clear()  # type: ignore[attr-defined]

        with pytest.raises(Exception, match="the metastore has no key"):
            engine.get_session("a").decrypt(first)

    def test_the_database_metastore_is_the_default(self, settings: DjangoSettings) -> None:
        settings.ASHERAH = as_asherah(METASTORE="database", DATABASE="other")
        metastore = engine.get_factory().metastore

        assert isinstance(metastore, DatabaseMetastore)
        assert metastore.alias == "other"

    def test_the_aws_kms_gets_its_regions_in_order_and_its_options(self, settings: DjangoSettings) -> None:
        settings.ASHERAH = {**AWS, "KMS_OPTIONS": {"max_attempts": 1, "connect_timeout": 0.5}}
        kms: Any = engine.get_factory().kms

        assert list(kms.master_keys) == ["us-east-1", "us-west-2"]
        assert kms.master_keys == AWS["REGIONS"]

    def test_dotted_paths_are_called_with_the_settings(self, settings: DjangoSettings) -> None:
        settings.ASHERAH = as_asherah(
            KMS="tests.test_engine.CountingKMS",
            KMS_OPTIONS={"anything": 1},
            METASTORE="tests.test_engine.BreakableMetastore",
            METASTORE_OPTIONS={"anything": 2},
        )
        factory: Any = engine.get_factory()

        assert factory.kms.settings.kms_options == {"anything": 1}
        assert factory.metastore.settings.metastore_options == {"anything": 2}

    @pytest.mark.parametrize("name", ["KMS", "METASTORE"])
    @pytest.mark.parametrize("path", ["no.such.module", "tests.test_engine.NoSuchClass"])
    def test_a_dotted_path_to_nowhere_is_named(self, settings: DjangoSettings, name: str, path: str) -> None:
        settings.ASHERAH = as_asherah(**{name: path})

        with pytest.raises(ImproperlyConfigured, match=rf"ASHERAH\['{name}'\] is '{path}', which can't be imported: "):
            engine.get_session()


class TestReset:
    def test_a_changed_setting_makes_another_factory(self, settings: DjangoSettings) -> None:
        first = engine.get_factory()
        settings.ASHERAH = as_asherah(PARTITION="elsewhere")

        assert engine.get_factory() is not first

    @pytest.mark.parametrize(("setting", "is_reset"), [("ASHERAH", True), ("DEBUG", False)])
    def test_only_settings_that_matter_reset(self, setting: str, is_reset: bool) -> None:
        first = engine.get_factory()
        setting_changed.send(type(self), setting=setting, value=None, enter=True)

        assert (engine.get_factory() is not first) is is_reset

    def test_wrong_settings_can_be_mended(self, settings: DjangoSettings) -> None:
        right = settings.ASHERAH
        settings.ASHERAH = {}
        with pytest.raises(ImproperlyConfigured):
            engine.get_session()
        settings.ASHERAH = right

        assert engine.get_session().decrypt(engine.get_session().encrypt(b"x")) == b"x"

    def test_a_session_that_somebody_holds_lets_its_keys_go_and_loads_them_again(self) -> None:
        session, factory = engine.get_session(), engine.get_factory()
        record = session.encrypt(b"x")
        engine.reset()

        assert (len(factory.system_keys), len(factory.intermediate_keys)) == (0, 0)
        assert session.decrypt(record) == b"x"
        assert (len(factory.system_keys), len(factory.intermediate_keys)) == (1, 1)

    def test_a_session_that_somebody_holds_opens_nothing_under_a_key_that_is_gone(self) -> None:
        session, factory = engine.get_session(), engine.get_factory()
        record = session.encrypt(b"x")
        factory.metastore.records.clear()  # type: ignore[attr-defined]
        assert session.decrypt(record) == b"x"
        engine.reset()

        with pytest.raises(KeyNotFoundError):
            session.decrypt(record)

    def test_resets_under_load_fail_no_call(self, settings: DjangoSettings) -> None:
        """A store that outlives the factories, as a database does."""
        settings.ASHERAH = as_asherah(METASTORE="tests.test_engine.lasting_metastore")

        def work(number: int) -> None:
            for _ in range(50):
                if number == 0:
                    engine.reset()
                else:
                    record = engine.get_session().encrypt(b"x")
                    assert engine.get_session().decrypt(record) == b"x"

        at_once(work, 8)


_lasting = MemoryMetastore()


def lasting_metastore(settings: Settings) -> MemoryMetastore:
    return _lasting


@pytest.mark.django_db(databases="__all__")  # At a request, Django looks at every connection that is open.
@pytest.mark.parametrize(
    ("jumps", "trusted"),
    [([61.0], False), ([59.0], True), ([30.0] * 3, False), ([-3600.0, 61.0], False), ([-3600.0, 59.0], True)],
    ids=str,
)
def test_a_request_after_a_standstill_looks_at_the_keys_again(
    jumps: list[float], trusted: bool, settings: Settings
) -> None:
    """A process that stood still has a wall clock that went on, and a timer that didn't."""
    settings.ASHERAH = as_asherah(METASTORE="memory")
    ahead = 0.0
    engine.use_clock(lambda: time.time() + ahead)
    try:
        engine.get_session().encrypt(b"x")
        opened = list(engine.get_factory().intermediate_keys.cache.opened.values())
        opened += engine.get_factory().system_keys.cache.opened.values()
        for jump in jumps:
            ahead += jump
            request_started.send(sender=None)
        assert [key.is_trusted(time.monotonic()) for key in opened] == [trusted, trusted]
    finally:
        engine.use_clock(time.time)


def test_keys_are_made_by_the_clock_that_is_to_be_used() -> None:
    engine.use_clock(lambda: 1_000_020.0)
    try:
        assert engine.get_session().newest_key().meta.created == 1_000_020
    finally:
        engine.use_clock(time.time)


class TestSignals:
    def test_new_keys_are_announced_after_the_system_key_they_need(self) -> None:
        with received(signals.key_created) as seen:
            engine.get_session().encrypt(b"x")
            engine.get_session().encrypt(b"y")

        created = {record.created for record in engine.get_factory().metastore.records.values()}  # type: ignore[attr-defined]
        assert len(created) == 1
        assert seen == [
            {"sender": SessionFactory, "key_id": SK, "created": created.copy().pop(), "by": actor()},
            {"sender": SessionFactory, "key_id": IK, "created": created.pop(), "by": actor()},
        ]

    def test_a_key_that_can_not_be_checked_is_announced(self, settings: DjangoSettings) -> None:
        settings.ASHERAH = as_asherah(METASTORE="tests.test_engine.BreakableMetastore")
        session, factory = engine.get_session(), engine.get_factory()
        session.encrypt(b"x")
        key = factory.intermediate_keys.current(IK)
        key.trust_until(1.0)  # Due for its check since 1970.
        factory.metastore.broken = broken = MetastoreError("down")  # type: ignore[attr-defined]

        with received(signals.stale_key_kept) as seen:
            session.encrypt(b"y")

        assert seen == [
            {"sender": SessionFactory, "key_id": IK, "created": key.meta.created, "cause": broken, "by": actor()},
        ]

    def test_a_region_that_fails_is_announced_with_its_cause(
        self, settings: DjangoSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        nowhere = dict.fromkeys(AWS["REGIONS"], "http://127.0.0.1:1")
        settings.ASHERAH = {**AWS, "KMS_OPTIONS": {"endpoint_urls": nowhere, "max_attempts": 1}}

        with received(signals.region_failed) as seen, pytest.raises(KMSError) as caught:
            engine.get_session().encrypt(b"x")

        assert [{**arguments, "cause": None} for arguments in seen] == [
            {
                "sender": SessionFactory,
                "region": region,
                "master_key": AWS["REGIONS"][region],  # type: ignore[index]
                "operation": "GenerateDataKey",
                "consequence": "the next region is asked",
                "cause": None,
                "by": actor(),
            }
            for region in ("us-east-1", "us-west-2")
        ]
        assert {arguments["region"]: arguments["cause"] for arguments in seen} == caught.value.failures

    def test_a_receiver_may_encrypt_itself(self) -> None:
        """It runs when no key's lock is held: threads that make each other's keys could wait for ever otherwise."""
        opened: list[bytes] = []

        def receive(key_id: str, **arguments: Any) -> None:
            for partition in ("a", "b", "default"):
                session = engine.get_session(partition)
                opened.append(session.decrypt(session.encrypt(b"from a receiver")))

        signals.key_created.connect(receive)
        try:
            at_once(lambda number: engine.get_session("ab"[number % 2]).encrypt(b"x"), 8)
        finally:
            signals.key_created.disconnect(receive)

        assert set(opened) == {b"from a receiver"}
        assert len(opened) == 3 * 4  # one system key, three intermediate keys

    def test_a_receiver_that_fails_fails_nothing_else(self, caplog: pytest.LogCaptureFixture) -> None:
        def receive(**arguments: Any) -> None:
            raise RuntimeError("the receiver fails")

        signals.key_created.connect(receive)
        try:
            record = engine.get_session().encrypt(b"x")
        finally:
            signals.key_created.disconnect(receive)

        assert engine.get_session().decrypt(record) == b"x"


class BusyMetastore(MemoryMetastore):
    """Lets the parent's threads wait for ever while they store a key of the partition ``slow``."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        import os

        self.parent = os.getpid()
        self.reached = threading.Event()

    def store(self, key_id: str, record: EnvelopeKeyRecord) -> bool:
        import os

        if "slow" in key_id and os.getpid() == self.parent:
            self.reached.set()
            threading.Event().wait(60)
        return super().store(key_id, record)


@pytest.mark.slow
@pytest.mark.parametrize("fork", ["os.fork", "ctypes.PyDLL(None).fork"], ids=FORKS)
class TestFork:
    def test_a_child_uses_the_keys_that_its_parent_has_opened(self, fork: str) -> None:
        code = """
import ctypes, os
from django.conf import settings
from django_asherah import engine
settings.ASHERAH["METASTORE"] = "memory"
record = engine.get_session().encrypt(b"from the parent")
engine.get_factory().metastore.records.clear()
child = FORK()
if not child:
    assert engine.get_session().decrypt(record) == b"from the parent"
    assert engine.get_session().decrypt(engine.get_session().encrypt(b"own")) == b"own"
    assert engine.get_session("new").decrypt(engine.get_session("new").encrypt(b"own")) == b"own"
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
        assert run_django(code.replace("FORK", fork), "sqlite://:memory:") == "7"

    def test_a_child_waits_for_no_lock_that_a_thread_of_its_parent_held(self, fork: str) -> None:
        code = """
import ctypes, os, signal, threading, warnings
from django.conf import settings
from django_asherah import engine
settings.ASHERAH["METASTORE"] = "tests.test_engine.BusyMetastore"
engine.get_session().encrypt(b"opens the system key")
threading.Thread(target=engine.get_session("slow").encrypt, args=[b"x"], daemon=True).start()
assert engine.get_factory().metastore.reached.wait(30)
warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of exactly this.
child = FORK()
if not child:
    signal.alarm(30)
    session = engine.get_session("slow")
    assert session.decrypt(session.encrypt(b"own")) == b"own"
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
os._exit(0)
"""
        assert run_django(code.replace("FORK", fork), "sqlite://:memory:") == "7"

    @pytest.mark.skipif(VENDOR == "sqlite", reason="SQLite has no server, and no sessions")
    @pytest.mark.parametrize("begin", ["request_started.send(None)", "engine.get_session('new').encrypt(b'x')"])
    def test_a_child_begins_with_a_database_session_of_its_own(self, fork: str, begin: str, shared_alias: str) -> None:
        code = """
import ctypes, os, sys
from django.core.signals import request_started
from django.db import connection
from django_asherah import engine

connection.settings_dict["CONN_MAX_AGE"] = None
def session():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()" if connection.vendor == "postgresql" else "SELECT CONNECTION_ID()")
        return cursor.fetchone()[0]

engine.get_session().encrypt(b"opens a connection")
ours = session()
child = FORK()
if not child:
    BEGIN
    sys.exit(7 if session() != ours else 1)  # As Python ends, it drops what it has inherited.
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), session() == ours)
"""
        program = code.replace("FORK", fork).replace("BEGIN", begin)
        assert run_django(program, url_of(shared_alias)) == "7 True"

    @pytest.mark.skipif(VENDOR != "postgresql", reason="Django pools connections to PostgreSQL alone")
    def test_a_child_begins_with_a_pool_of_its_own(self, fork: str, shared_alias: str) -> None:
        code = """
import ctypes, os
from django.core.signals import request_finished, request_started
from django.db import connection
from django_asherah import engine

connection.settings_dict["OPTIONS"]["pool"] = {"min_size": 1, "max_size": 1, "timeout": 20}
def session_of_a_request():
    request_started.send(None)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (session,) = cursor.fetchone()
    request_finished.send(None)
    return session

engine.get_session().encrypt(b"opens a connection beside the pool")
child = FORK()
if not child:
    engine.get_session("new").encrypt(b"opens another")
    os._exit(7 if len({session_of_a_request() for _ in range(3)}) == 1 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len({session_of_a_request() for _ in range(3)}))
connection.close_pool()
"""
        assert run_django(code.replace("FORK", fork), url_of(shared_alias)) == "7 1"

    def test_parent_and_children_share_the_database(self, fork: str, shared_alias: str) -> None:
        code = """
import ctypes, os
from django.db import connections
from django_asherah import engine
from tests.testapp.models import Note
before = Note.objects.create(body="from the parent").pk
connections.close_all()  # As every prefork server must, whatever it runs.
children = []
for number in range(3):
    child = FORK()
    if not child:
        assert Note.objects.get(pk=before).body == "from the parent"
        Note.objects.create(body=f"from child {number}")
        engine.get_session(f"new {number}").encrypt(b"makes a key")
        os._exit(7)
    children.append(child)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
engine.reset()
print(sorted(note.body for note in Note.objects.all()))
"""
        assert run_django(code.replace("FORK", fork), url_of(shared_alias)) == (
            "['from child 0', 'from child 1', 'from child 2', 'from the parent']"
        )
