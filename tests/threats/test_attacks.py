"""What each attacker of the threat model gets, and does not get. The page names these tests, row by row."""

from __future__ import annotations

import json
import pickle
import re
from typing import Any

import msgspec
import pytest
from django.db import connection
from django.db.models import F

from django_asherah.envelope.aead import Cipher
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, decode_row, encode_key, encode_row
from django_asherah.exceptions import (
    AsherahError,
    DecryptionError,
    KeyNotFoundError,
    KMSError,
    PartitionMismatchError,
)
from django_asherah.fields.template import PartitionTemplate
from django_asherah.kms.aws import AwsKMS
from django_asherah.kms.kek import RegionKek, WrappedSystemKey, decode_wrapped, encode_wrapped
from fuzz import world as aws
from tests.envelope.fakes import DAY, IK_ID, SK_ID, START, World
from tests.fields.helpers import raw, set_raw
from tests.kms.conftest import Kit, kit  # noqa: F401 - a fixture
from tests.leaks.search import holds
from tests.testapp.models import Clinic, Document, Note, Patient, Tenancy

SECRET = "the very secret text"


@pytest.fixture
def world() -> World:
    return World()


def replaced(record: EnvelopeKeyRecord, **changes: Any) -> EnvelopeKeyRecord:
    return msgspec.structs.replace(record, **changes)


# Who reads the database, or steals a backup of it.


def test_the_tables_without_the_kms_give_no_plaintext(world: World) -> None:
    text = world.factory.get_session("p").encrypt(SECRET.encode())
    tables = text + "".join(encode_key(record) for record in world.metastore.records.values())
    assert holds(tables, SECRET.encode()) == []
    thief = World()
    thief.metastore.records = dict(world.metastore.records)
    thief.kms._cipher = Cipher(b"t" * 32)
    with pytest.raises(AsherahError):
        thief.factory.get_session("p").decrypt(text)


def test_size_time_and_partition_of_a_value_are_visible(world: World) -> None:
    record = decode_row(world.factory.get_session("p").encrypt(b"x" * 1234))
    assert len(record.data) == 1234 + 28
    assert record.key.created == START
    assert record.key.parent_key_meta == KeyMeta(IK_ID, START)


def test_equal_values_are_not_seen_to_be_equal(world: World) -> None:
    session = world.factory.get_session("p")
    first, second = (decode_row(session.encrypt(b"the same")) for _ in range(2))
    assert first.data != second.data
    assert first.key.key != second.key.key


def test_an_old_backup_opens_as_long_as_its_system_key_is_unwrapped(world: World) -> None:
    """Rotating and revoking are for new writes: what was stolen stays as it was. Disabling the KMS key ends it."""
    session = world.factory.get_session("p")
    text = session.encrypt(SECRET.encode())
    backup = dict(world.metastore.records)
    world.metastore.revoke(KeyMeta(SK_ID, START))
    world.metastore.revoke(KeyMeta(IK_ID, START))
    thief = World()
    thief.metastore.records = backup
    assert thief.factory.get_session("p").decrypt(text) == SECRET.encode()
    thief = World()
    thief.metastore.records, thief.kms.down = backup, True
    with pytest.raises(KMSError):
        thief.factory.get_session("p").decrypt(text)


# Who writes the database: the data.


@pytest.mark.django_db
def test_records_of_one_partition_can_be_swapped_between_rows_and_columns() -> None:
    """The wire format binds a record to its partition and to nothing else."""
    mine, other = Note.objects.create(body="mine", other_body="too"), Note.objects.create(body="the other's")
    set_raw(mine, "body", raw(other, "body"))
    set_raw(other, "body", raw(mine, "other_body"))
    assert list(Note.objects.order_by("pk").values_list("body", flat=True)) == ["the other's", "too"]


@pytest.mark.django_db
def test_a_record_of_another_partition_is_refused() -> None:
    row = Tenancy.objects.create(left="left", right="right")
    set_raw(row, "right", raw(row, "left"))
    row.refresh_from_db()
    with pytest.raises(PartitionMismatchError, match=r"testapp\.Tenancy\.right"):
        _ = row.right


def patients_of_two_clinics() -> tuple[Patient, Patient]:
    first, second = (Clinic.objects.create(name=name) for name in ("North", "South"))
    return (
        Patient.objects.create(clinic=first, ssn="mine", history={"mine": 1}, scan=b"mine"),
        Patient.objects.create(clinic=second, ssn="theirs", history={"theirs": 1}, scan=b"theirs"),
    )


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["ssn", "history", "scan"])
def test_a_record_of_another_tenant_never_opens_whoever_put_it_there(name: str) -> None:
    mine, theirs = patients_of_two_clinics()
    set_raw(mine, name, raw(theirs, name))
    reads = [
        lambda: getattr(Patient.objects.get(pk=mine.pk), name),
        lambda: list(Patient.objects.filter(pk=mine.pk).values("clinic", name)),
        lambda: Patient.objects.annotate(copy=F(name)).get(pk=mine.pk),
        lambda: getattr(Patient.objects.raw("SELECT * FROM testapp_tenants_patient WHERE id = %s", [mine.pk])[0], name),
    ]
    for read in reads:
        with pytest.raises(PartitionMismatchError, match=rf"^testapp\.Patient\.{name}"):
            read()


@pytest.mark.django_db
def test_a_row_that_is_given_to_another_tenant_does_not_open_there() -> None:
    mine, theirs = patients_of_two_clinics()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE testapp_tenants_patient SET clinic_id = %s WHERE id = %s", [mine.clinic_id, theirs.pk])
    stolen = Patient.objects.get(pk=theirs.pk)
    for name in ("ssn", "history", "scan"):
        with pytest.raises(PartitionMismatchError):
            getattr(stolen, name)


@pytest.mark.django_db
def test_records_of_one_tenant_can_be_swapped_between_their_rows() -> None:
    mine, _ = patients_of_two_clinics()
    other = Patient.objects.create(clinic=mine.clinic, ssn="the other's")
    set_raw(mine, "ssn", raw(other, "ssn"))
    assert Patient.objects.get(pk=mine.pk).ssn == "the other's"


def test_no_two_tenants_have_one_partition_whatever_their_names() -> None:
    template = PartitionTemplate("t-{a}:{b}")
    parts = ["a", "A", "a_b", "a:b", "a%5Fb", "%5F", "_", ":", "a\u0300", "\u00e0", " ", "\x00", "{a}", "-", "."]
    partitions = {template.render([a, b]) for a in parts for b in parts}
    assert len(partitions) == len(parts) ** 2
    assert not [each for each in partitions if not re.fullmatch(r"t-[A-Za-z0-9.%-]+:[A-Za-z0-9.%-]+", each)]


@pytest.mark.django_db
def test_a_renamed_record_of_another_partition_does_not_open() -> None:
    row = Tenancy.objects.create(left="left", right="right")
    record = decode_row(raw(row, "left"))
    parent = decode_row(raw(row, "right")).key.parent_key_meta
    forged = msgspec.structs.replace(record, key=msgspec.structs.replace(record.key, parent_key_meta=parent))
    set_raw(row, "right", encode_row(forged))
    row.refresh_from_db()
    with pytest.raises(DecryptionError, match="sealed under another key, or tampered with"):
        _ = row.right


@pytest.mark.django_db
def test_a_value_can_be_rolled_back_to_an_older_one() -> None:
    note = Note.objects.create(body="old")
    old = raw(note, "body")
    Note.objects.update(body="new")
    set_raw(note, "body", old)
    note.refresh_from_db()
    assert note.body == "old"


@pytest.mark.django_db
def test_a_value_can_be_deleted_but_not_made_up() -> None:
    note = Note.objects.create(body="x")
    set_raw(note, "body", None)
    note.refresh_from_db()
    assert note.body is None
    for made_up in ("admin", '{"is_admin": true}', ""):
        set_raw(note, "body", made_up)
        note.refresh_from_db()
        with pytest.raises(DecryptionError):
            _ = note.body


@pytest.mark.django_db
def test_a_record_of_another_fields_type_is_a_value_where_it_makes_sense() -> None:
    """A document is text: whose type a record has is not sealed with it."""
    note, document = Note.objects.create(body="x"), Document.objects.create(doc={"a": 1})
    set_raw(note, "body", raw(document, "doc"))
    note.refresh_from_db()
    assert note.body == '{"a":1}'


# Who writes the database: the key table.


def test_deleting_keys_loses_data_and_opens_none(world: World) -> None:
    text = world.factory.get_session("p").encrypt(b"x")
    world.metastore.records.clear()
    cold = world.new_process().get_session("p")
    with pytest.raises(KeyNotFoundError, match=f"no key {IK_ID} created {START}: was its row deleted"):
        cold.decrypt(text)
    assert cold.decrypt(cold.encrypt(b"new")) == b"new"


def test_a_made_up_intermediate_key_is_never_written_under(world: World) -> None:
    """Whoever does not hold the system key can't seal a key of his own: new writes get a new key."""
    session = world.factory.get_session("p")
    session.encrypt(b"x")
    real = world.metastore.records[KeyMeta(IK_ID, START)]
    evil = replaced(real, created=START + 60, key=Cipher(b"e" * 32).seal(b"e" * 32))
    world.metastore.records[KeyMeta(IK_ID, START + 60)] = evil
    world.clock.now += 3600
    text = world.new_process().get_session("p").encrypt(b"new")
    assert decode_row(text).key.parent_key_meta.created not in (START, START + 60)


@pytest.mark.slow
def test_a_made_up_system_key_is_never_written_under(kit: Kit) -> None:  # noqa: F811
    """An entry that names the attacker's ARN is not asked for: the configured ARN of the region is."""
    west = kit.servers["us-west-2"]
    evil_arn = west.create_key()
    evil_kek = west.client.generate_data_key(KeyId=evil_arn, KeySpec="AES_256")
    sealed = Cipher(evil_kek["Plaintext"]).seal(b"a key that the attacker knows!!!")
    entry = RegionKek("us-west-2", evil_arn, evil_kek["CiphertextBlob"])
    evil = encode_wrapped(WrappedSystemKey(sealed, [entry]))
    with pytest.raises(KMSError) as caught:
        kit.kms().decrypt_key(evil)
    assert "us-west-2: ClientError" in str(caught.value)
    with pytest.raises(KMSError):
        kit.kms().rewrap(evil)


def test_an_arn_of_the_attackers_is_never_asked() -> None:
    asked: list[str] = []

    class Client:
        def decrypt(self, KeyId: str, CiphertextBlob: bytes) -> dict[str, bytes]:
            asked.append(KeyId)
            return {"Plaintext": aws.KEK}

    class Session:
        def client(self, service: str, region_name: str, **options: Any) -> Client:
            return Client()

    document = json.loads(aws.wrapped_key())
    for entry in document["kmsKeks"]:
        entry["arn"] = entry["arn"].replace("111122223333", "666666666666")
    kms = AwsKMS(aws.REGIONS, "us-west-2", session=Session())
    assert kms.decrypt_key(json.dumps(document).encode()) == aws.SYSTEM_KEY
    assert asked == [aws.REGIONS["us-west-2"]]


def test_a_revoked_key_can_be_un_revoked(world: World) -> None:
    """The flag is not sealed. A key that leaked must be replaced, and data that matters re-encrypted."""
    session = world.factory.get_session("p")
    session.encrypt(b"x")
    world.metastore.revoke(KeyMeta(IK_ID, START))
    assert decode_row(world.new_process().get_session("p").encrypt(b"x")).key.parent_key_meta.created != START
    world.metastore.records = {
        meta: record for meta, record in world.metastore.records.items() if meta.created == START
    }
    world.metastore.revoke(KeyMeta(IK_ID, START), revoked=False)
    assert decode_row(world.new_process().get_session("p").encrypt(b"x")).key.parent_key_meta.created == START


def test_an_old_key_can_be_made_the_newest(world: World) -> None:
    """A key's creation time is not sealed either: its row can be copied under a newer one."""
    session = world.factory.get_session("p")
    session.encrypt(b"x")
    old = world.metastore.records[KeyMeta(IK_ID, START)]
    world.clock.now += 89 * DAY
    now = int(world.clock.now)
    world.metastore.records[KeyMeta(IK_ID, now)] = replaced(old, created=now)
    text = world.new_process().get_session("p").encrypt(SECRET.encode())
    assert decode_row(text).key.parent_key_meta.created == now
    under_old = decode_row(text)
    under_old = msgspec.structs.replace(
        under_old, key=msgspec.structs.replace(under_old.key, parent_key_meta=KeyMeta(IK_ID, START))
    )
    assert session.decrypt(encode_row(under_old)) == SECRET.encode()


def test_who_writes_both_tables_can_show_one_partition_the_data_of_another(world: World) -> None:
    """All intermediate keys are sealed by one system key, and their rows can be copied: the wire format's limit."""
    text = world.factory.get_session("p").encrypt(SECRET.encode())
    meta = KeyMeta("_IK_q_svc_prod", START)
    world.metastore.records[meta] = world.metastore.records[KeyMeta(IK_ID, START)]
    record = decode_row(text)
    moved = msgspec.structs.replace(record, key=msgspec.structs.replace(record.key, parent_key_meta=meta))
    assert world.new_process().get_session("q").decrypt(encode_row(moved)) == SECRET.encode()


# Who controls one region.


def test_one_region_alone_reads_everything() -> None:
    """Any region is enough, for the attacker too: the master key of one opens every system key."""
    wrapped = decode_wrapped(aws.wrapped_key())
    for entry in wrapped.kms_keks:
        only = encode_wrapped(WrappedSystemKey(wrapped.encrypted_key, [entry]))
        assert aws.make_aws().decrypt_key(only) == aws.SYSTEM_KEY


def test_a_region_that_lies_can_stop_itself_and_forge_nothing() -> None:
    class Liar:
        def decrypt(self, KeyId: str, CiphertextBlob: bytes) -> dict[str, bytes]:
            return {"Plaintext": b"l" * 32}

    class Session:
        def client(self, service: str, region_name: str, **options: Any) -> Any:
            return Liar() if region_name == "us-west-2" else aws._Client(region_name)

    kms = AwsKMS(aws.REGIONS, "us-west-2", session=Session())
    assert kms.decrypt_key(aws.wrapped_key()) == aws.SYSTEM_KEY
    assert {region for region, answer in kms.last_answers().items() if not answer.ok} == {"us-west-2"}


def test_a_region_that_makes_the_data_key_knows_it() -> None:
    """The region that answers ``GenerateDataKey`` chooses the KEK of a new system key."""

    class Liar:
        def generate_data_key(self, **request: Any) -> dict[str, bytes]:
            return {"Plaintext": b"l" * 32, "CiphertextBlob": b"blob"}

        def encrypt(self, **request: Any) -> dict[str, bytes]:
            return {"CiphertextBlob": b"blob"}

        def decrypt(self, **request: Any) -> dict[str, bytes]:
            return {"Plaintext": b"l" * 32}

    class Session:
        def client(self, service: str, region_name: str, **options: Any) -> Any:
            return Liar()

    blob = AwsKMS(aws.REGIONS, "us-west-2", session=Session()).encrypt_key(b"s" * 32)
    assert Cipher(b"l" * 32).open_key(decode_wrapped(blob).encrypted_key) == b"s" * 32


# Who runs code in the application.


def test_code_in_the_process_reads_what_it_reads(world: World) -> None:
    session = world.factory.get_session("p")
    text = session.encrypt(SECRET.encode())
    assert world.factory.get_session("p").decrypt(text) == SECRET.encode()


def test_a_partition_is_compared_whole_and_not_by_its_beginning(world: World) -> None:
    text = world.factory.get_session("a").encrypt(b"x")
    for other in ("A", "a_", "a_svc_prod", "", "aa"):
        with pytest.raises(AsherahError):
            world.factory.get_session(other).decrypt(text)


def test_a_tenant_who_chooses_his_partitions_name_can_not_make_it_anothers(world: World) -> None:
    """Ids join their parts with ``_``: of one service and product, two partitions still never share an id."""
    ids = {world.factory.get_session(name).partition.intermediate_key_id for name in ("a", "a_svc", "a_svc_prod", "A")}
    assert len(ids) == 4


def test_a_key_of_another_service_with_the_same_id_is_not_used(world: World) -> None:
    app = world.new_process("app", "pay", key_suffix="eu").get_session("t1")
    pay = world.new_process("pay", "eu").get_session("t1_app")
    texts = app.encrypt(SECRET.encode()), pay.encrypt(b"theirs")
    assert app.partition.intermediate_key_id == pay.partition.intermediate_key_id
    assert (app.decrypt(texts[0]), pay.decrypt(texts[1])) == (SECRET.encode(), b"theirs")
    for session, text in ((pay, texts[0]), (app, texts[1])):
        with pytest.raises(PartitionMismatchError):
            session.decrypt(text)


def test_no_suffix_that_is_read_makes_a_partition_anothers(world: World) -> None:
    """Without its suffix, partition ``q_a`` of this service and product would have the id of ``q`` with it."""
    factory = world.new_process("a", "a", key_suffix="a", read_suffixes=["b"])
    text = factory.get_session("q").encrypt(SECRET.encode())
    for other in ("q_a", "q_a_a", "q_a_b"):
        with pytest.raises(PartitionMismatchError):
            factory.get_session(other).decrypt(text)


# Who reads logs, error pages and caches.


@pytest.mark.django_db
def test_a_pickle_of_an_instance_holds_what_was_read_and_records_of_the_rest() -> None:
    Note.objects.create(body=SECRET, other_body="the other secret")
    note = Note.objects.get()
    assert holds(pickle.dumps(note), SECRET.encode()) == []
    assert note.body == SECRET
    assert holds(pickle.dumps(note), SECRET.encode()) != []
    assert holds(pickle.dumps(note), b"the other secret") == []
    assert holds(pickle.dumps(Note(body=SECRET)), SECRET.encode()) != []
