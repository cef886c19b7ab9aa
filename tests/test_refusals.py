"""A record that was damaged, tampered with or swapped is signalled each time, and logged once a minute for each key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import InMemoryStorage

from django_asherah import audit, engine, lifecycle, signals
from django_asherah.envelope.interfaces import Event, RecordRefused
from django_asherah.envelope.session import Session, SessionFactory
from django_asherah.exceptions import DecryptionError, InvalidRecordError, KeyNotFoundError, PartitionMismatchError
from django_asherah.kms.static import StaticKMS
from django_asherah.lifecycle.reencryption import Options
from django_asherah.metastores.memory import MemoryMetastore
from django_asherah.models import EncryptionKey
from django_asherah.refusals import MOST_KEY_IDS, Refusals
from django_asherah.storage import EncryptedStorage
from tests.databases import execute
from tests.fields.helpers import raw, set_raw
from tests.testapp.models import Compact, Note
from tests.testapp.tenants import Member

IK_ID = "_IK_default_suite_tests"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def refused(number: int = 0) -> RecordRefused:
    return RecordRefused(f"_IK_{number}_s_p", 5, "DecryptionError: so it is")


@pytest.fixture
def heard() -> Iterator[list[dict[str, Any]]]:
    heard: list[dict[str, Any]] = []

    def listen(sender: Any, signal: Any, **details: Any) -> None:
        heard.append(details)

    signals.record_refused.connect(listen)
    engine.reset()
    with audit.acting_as("me"):
        yield heard
    engine.reset()
    signals.record_refused.disconnect(listen)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [text for text in caplog.messages if text.startswith("record_refused ")]


class TestLines:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def refusals(self, clock: Clock) -> Refusals:
        return Refusals(clock)

    def test_one_a_minute_says_how_many_were_left_out(
        self, refusals: Refusals, clock: Clock, heard: list[Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        line = 'record_refused key_id=_IK_0_s_p created=5 reason="DecryptionError: so it is" by=me'
        for _ in range(10_000):
            refusals.tell(refused())
        assert caplog.messages == [line]
        assert caplog.records[0].levelname == "WARNING"
        clock.now += 60
        refusals.tell(refused())
        assert caplog.messages == [line, f"{line} left_out=9999"]
        clock.now += 60
        refusals.tell(refused())
        assert caplog.messages[2:] == [line]
        assert len(heard) == 10_002

    def test_each_key_has_its_own(self, refusals: Refusals, heard: list[Any], caplog: pytest.LogCaptureFixture) -> None:
        for number in (1, 2, 1, 2):
            refusals.tell(refused(number))
        assert [line.split()[1] for line in caplog.messages] == ["key_id=_IK_1_s_p", "key_id=_IK_2_s_p"]

    def test_a_million_keys_take_neither_memory_nor_lines(
        self, refusals: Refusals, clock: Clock, heard: list[Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        for number in range(MOST_KEY_IDS * 3):
            refusals.tell(refused(number))
        assert len(caplog.messages) == MOST_KEY_IDS + 1
        assert len(refusals._lines) == MOST_KEY_IDS + 1
        clock.now += 60
        for number in range(MOST_KEY_IDS * 3, MOST_KEY_IDS * 6):
            refusals.tell(refused(number))
        assert len(refusals._lines) <= MOST_KEY_IDS + 1
        assert len(caplog.messages) <= 2 * (MOST_KEY_IDS + 1)


class TestSession:
    """The engine alone, without Django."""

    @pytest.fixture
    def events(self) -> list[Event]:
        return []

    @pytest.fixture
    def factory(self, events: list[Event]) -> SessionFactory:
        return SessionFactory("s", "p", MemoryMetastore(), StaticKMS(b"k" * 32), on_event=events.append)

    @pytest.mark.parametrize(
        "seal", [lambda session: session.encrypt(b"x").encode(), lambda s: s.encrypt_compact(b"x")]
    )
    def test_every_flipped_bit_is_told_or_names_a_key_that_there_is_not(
        self, factory: SessionFactory, events: list[Event], seal: Callable[[Session], bytes]
    ) -> None:
        session = factory.get_session("a")
        record = seal(session)
        for place in range(len(record) * 8):
            changed = bytearray(record)
            changed[place // 8] ^= 1 << place % 8
            events.clear()
            try:
                session.decrypt(bytes(changed))
            except KeyNotFoundError:
                continue
            except DecryptionError:
                [told] = [event for event in events if isinstance(event, RecordRefused)]
                assert told.key_id == "_IK_a_s_p"
            else:  # What the JSON says of the data row key's age, or how it is written, changes nothing.
                assert record.startswith(b"{")
                assert session.decrypt(record) == b"x"

    def test_a_bit_of_the_payload(self, factory: SessionFactory, events: list[Event]) -> None:
        session = factory.get_session("a")
        record = bytearray(session.encrypt_compact(b"x"))
        record[-1] ^= 1
        events.clear()
        with pytest.raises(DecryptionError):
            session.decrypt(bytes(record))
        created = session.newest_key().meta.created
        [told] = events
        assert isinstance(told, RecordRefused)
        assert (told.key_id, told.created) == ("_IK_a_s_p", created)
        assert told.reason.startswith("DecryptionError: ")

    @pytest.mark.parametrize("seal", [Session.encrypt, Session.encrypt_compact])
    def test_another_partitions_record(
        self, factory: SessionFactory, events: list[Event], seal: Callable[..., Any]
    ) -> None:
        record = seal(factory.get_session("b"), b"x")
        session = factory.get_session("a")
        events.clear()
        with pytest.raises(PartitionMismatchError) as caught:
            session.decrypt(record)
        assert events == [RecordRefused("_IK_a_s_p", None, f"PartitionMismatchError: {caught.value}")]

    def test_a_key_record_that_does_not_open(self, factory: SessionFactory, events: list[Event]) -> None:
        session = factory.get_session("a")
        record, key = session.encrypt(b"x"), session.newest_key()
        lost = SessionFactory("s", "p", MemoryMetastore(), StaticKMS(b"k" * 32), on_event=events.append)
        system = factory.system_keys.current(factory.system_key_id)
        lost.metastore.store(system.meta.key_id, system.record)
        sealed = bytearray(key.record.key)
        sealed[-1] ^= 1
        lost.metastore.store(
            key.meta.key_id,
            type(key.record)(created=key.record.created, key=bytes(sealed), parent_key_meta=key.record.parent_key_meta),
        )
        events.clear()
        with pytest.raises(DecryptionError):
            lost.get_session("a").decrypt(record)
        told = [event for event in events if isinstance(event, RecordRefused)]
        assert [(event.key_id, event.created) for event in told] == [("_IK_a_s_p", key.meta.created)]

    def test_a_listener_may_encrypt(self) -> None:
        sealed: list[str] = []

        def listen(event: Event) -> None:
            if isinstance(event, RecordRefused):
                sealed.append(factory.get_session("a").encrypt(b"noted"))

        factory = SessionFactory("s", "p", MemoryMetastore(), StaticKMS(b"k" * 32), on_event=listen)
        with pytest.raises(InvalidRecordError):
            factory.get_session("a").decrypt("no record")
        assert factory.get_session("a").decrypt(sealed[0]) == b"noted"

    def test_what_is_good_tells_nothing(self, factory: SessionFactory, events: list[Event]) -> None:
        session = factory.get_session("a")
        assert session.decrypt(session.encrypt(b"x")) == session.decrypt(session.encrypt_compact(b"x")) == b"x"
        assert not [event for event in events if isinstance(event, RecordRefused)]


FORMATS = [(Note, "body"), (Compact, "body"), (Compact, "json_bytes")]
READS: dict[str, Callable[[Any, str, int], object]] = {
    "an instance": lambda model, name, pk: getattr(model.objects.get(pk=pk), name),
    "values": lambda model, name, pk: list(model.objects.filter(pk=pk).values(name)),
    "values_list": lambda model, name, pk: list(model.objects.filter(pk=pk).values_list(name, flat=True)),
    "in_bulk": lambda model, name, pk: getattr(model.objects.in_bulk([pk])[pk], name),
    "a deferred one": lambda model, name, pk: getattr(model.objects.defer(name).get(pk=pk), name),
}


@pytest.mark.django_db(transaction=True)
class TestFields:
    @pytest.mark.parametrize("read", READS)
    @pytest.mark.parametrize(("model", "name"), FORMATS)
    def test_a_flipped_bit_is_told_once(
        self, model: Any, name: str, read: str, heard: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
    ) -> None:
        row = model.objects.create(**{name: "the plaintext"})
        record = raw(row, name)
        text = bytes(record) if not isinstance(record, str) else record.encode()
        flipped = bytearray(text)
        place = -6 if model is Note or name == "json_bytes" else -1
        flipped[place] ^= 1 if flipped[place] != ord("z") else 2
        set_raw(row, name, flipped.decode() if isinstance(record, str) else bytes(flipped))
        with pytest.raises(DecryptionError):
            READS[read](model, name, row.pk)
        [told] = heard
        assert (told["key_id"], told["by"]) == (IK_ID, "me")
        [line] = lines(caplog)
        assert line.startswith(f"record_refused key_id={IK_ID} ")
        assert "the plaintext" not in line + str(told)
        assert text.decode(errors="replace")[-30:] not in line + str(told)

    def test_reading_a_batch_of_bad_rows_writes_one_line(
        self, heard: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
    ) -> None:
        Note.objects.bulk_create(Note(body="x") for _ in range(50))
        execute("default", "UPDATE testapp_note SET body = 'no record'")
        for note in Note.objects.all():
            with pytest.raises(InvalidRecordError):
                note.body
        assert (len(heard), len(lines(caplog))) == (50, 1)

    @pytest.mark.parametrize("name", ["secret", "photo"])
    def test_rows_that_were_swapped(self, name: str, heard: list[dict[str, Any]]) -> None:
        values = {"secret": "s", "photo": b"p"}
        one, two = (Member.objects.create(tenant=each, name=each, **values) for each in ("a", "b"))
        records = raw(one, name), raw(two, name)
        set_raw(one, name, records[1])
        set_raw(two, name, records[0])
        for row in Member.objects.order_by("pk"):
            with pytest.raises(PartitionMismatchError):
                getattr(row, name)
        assert [told["key_id"] for told in heard] == [f"_IK_member-{each}_suite_tests" for each in ("a", "b")]
        assert all(told["reason"].startswith("PartitionMismatchError: ") for told in heard)

    def test_looking_at_a_row_tells_nothing(self, heard: list[dict[str, Any]]) -> None:
        note = Note.objects.create(body="x")
        set_raw(note, "body", "no record")
        found = Note.objects.get()
        assert repr(found) == f"<Note: Note object ({note.pk})>"
        found.title = "new"
        found.save()
        assert heard == []

    def test_a_key_record_that_was_damaged(self, heard: list[dict[str, Any]]) -> None:
        Note.objects.create(body="x")
        row = EncryptionKey.objects.get(key_id=IK_ID)
        sealed = row.key_record["Key"]
        row.key_record["Key"] = sealed[:10] + ("A" if sealed[10] != "A" else "B") + sealed[11:]
        EncryptionKey.objects.filter(pk=row.pk).update(key_record=row.key_record)
        engine.reset()
        with pytest.raises(DecryptionError):
            Note.objects.get().body
        [told] = heard
        assert (told["key_id"], told["created"]) == (IK_ID, row.key_record["Created"])


@pytest.mark.django_db(transaction=True)
class TestLifecycle:
    @pytest.mark.parametrize(
        "work",
        [
            lambda: lifecycle.verify_data(["testapp.Note.body"]).bad.total,
            lambda: lifecycle.verify_data(["testapp.Note.body"], sample=100).bad.total,
            lambda: lifecycle.reencrypt(["testapp.Note.body"], options=Options(all=True)).bad.total,
        ],
    )
    def test_bad_rows_write_one_line(
        self, work: Callable[[], int], heard: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
    ) -> None:
        Note.objects.bulk_create(Note(body="x") for _ in range(50))
        execute("default", "UPDATE testapp_note SET body = 'no record'")
        assert work() == 50
        assert (len(heard), len(lines(caplog))) == (50, 1)

    @pytest.mark.parametrize("name", ["secret", "photo"])
    @pytest.mark.parametrize("work", [lifecycle.verify_data, lifecycle.reencrypt])
    def test_swapped_rows(self, work: Callable[[list[str]], Any], name: str, heard: list[dict[str, Any]]) -> None:
        values = {"secret": "s", "photo": b"p"}
        one, two = (Member.objects.create(tenant=each, name=each, **values) for each in ("a", "b"))
        records = raw(one, name), raw(two, name)
        set_raw(one, name, records[1])
        set_raw(two, name, records[0])
        assert work([f"testapp.Member.{name}"]).bad.total == 2
        assert [told["key_id"] for told in heard] == [f"_IK_member-{each}_suite_tests" for each in ("a", "b")]


@pytest.mark.django_db(transaction=True)
class TestFiles:
    @pytest.mark.parametrize("place", [0, 60, -1])
    def test_a_damaged_file_is_told(self, place: int, heard: list[dict[str, Any]]) -> None:
        inner = InMemoryStorage()
        storage = EncryptedStorage(inner)
        name = storage.save("a.txt", ContentFile(b"x" * 100))
        content = bytearray(inner.open(name).read())
        content[place] ^= 1
        inner.delete(name)
        inner.save(name, ContentFile(bytes(content)))
        with pytest.raises(DecryptionError), storage.open(name) as file:
            file.read()
        assert [told["key_id"] for told in heard] == [IK_ID]

    def test_a_record_in_place_of_a_file_is_told(self, heard: list[dict[str, Any]]) -> None:
        session = engine.get_session()
        with pytest.raises(DecryptionError):
            session.open_file(session.encrypt(b"no file"))
        assert len(heard) == 1
