"""What may be loaded into the key table, and what is refused: nothing that stands there is ever replaced."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from django.core import serializers

from django_asherah import engine
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta
from django_asherah.exceptions import AsherahError, InvalidRecordError, KMSError, MetastoreError
from django_asherah.kms.static import StaticKMS
from django_asherah.metastores.database import DatabaseMetastore
from django_asherah.models import EncryptionKey
from tests.databases import record
from tests.dumps.conftest import Dump, Write
from tests.dumps.helpers import DAY, NOW, SK_ID, key_row, keys_of, load, make_keys, note_row
from tests.testapp.models import Note

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def standing_system_key() -> tuple[KeyMeta, EnvelopeKeyRecord]:
    make_keys(days_old=1)
    return next((meta, each) for meta, each in keys_of().items() if meta.key_id == SK_ID)


def is_refused(path: Any, error: type[AsherahError], message: str) -> None:
    """Loading must fail so, and change nothing."""
    make_keys(days_old=0)
    before = keys_of()
    with pytest.raises(error, match=message):
        load(path)
    assert keys_of() == before
    assert not Note.objects.exists()
    load(path, exclude=["django_asherah"])  # As the message says.
    engine.reset()
    assert Note.objects.get().body == "loaded"
    assert keys_of() == before


class TestOneIdAndTime:
    def test_another_key_is_refused(self, write: Write) -> None:
        meta, _ = standing_system_key()
        path = write(note_row(), key_row(SK_ID, record(meta.created, 9)))
        is_refused(path, MetastoreError, rf"key {SK_ID} created {meta.created} in database 'default' is not the one")

    def test_another_parent_is_refused(self, write: Write) -> None:
        make_keys(days_old=1)
        meta, standing = next((meta, each) for meta, each in keys_of().items() if each.parent_key_meta)
        changed = msgspec.structs.replace(standing, parent_key_meta=KeyMeta(SK_ID, 60))
        is_refused(write(note_row(), key_row(meta.key_id, changed)), MetastoreError, "is not the one")

    def test_a_damaged_row_is_not_replaced(self, write: Write) -> None:
        _, standing = standing_system_key()
        EncryptionKey.objects.filter(key_id=SK_ID).update(key_record={"damaged": 1})
        with pytest.raises(MetastoreError, match="is not the one"):
            load(write(key_row(SK_ID, standing)))
        assert EncryptionKey.objects.get(key_id=SK_ID).key_record == {"damaged": 1}

    def test_the_same_key_stays_revoked(self, write: Write) -> None:
        meta, standing = standing_system_key()
        EncryptionKey.objects.filter(key_id=SK_ID).update(
            key_record=key_row(SK_ID, revoked(standing))["fields"]["key_record"]
        )
        load(write(key_row(SK_ID, standing)))
        assert keys_of()[meta] == revoked(standing)

    def test_a_revocation_that_would_be_lost_is_an_error(self, write: Write) -> None:
        _, standing = standing_system_key()
        path = write(note_row(), key_row(SK_ID, revoked(standing)))
        is_refused(path, MetastoreError, r"is not revoked, but was when it was dumped: .*asherah_revoke")


class TestNoKeys:
    def test_rows_of_an_sdks_own_are_left_out(self, write: Write) -> None:
        load(write(key_row("__asherah_internal_config_drift_guard_v1__:x", record(60)), note_row()))
        assert Note.objects.get().body == "loaded"
        assert not EncryptionKey.objects.filter(key_id__startswith="__asherah").exists()

    @pytest.mark.parametrize("damaged", [None, {"Created": 60}])
    def test_a_damaged_record_is_refused(self, write: Write, damaged: Any) -> None:
        path = write(note_row(), key_row("_IK_a_suite_tests", record(60), key_record=damaged))
        is_refused(path, InvalidRecordError, r"the record of key _IK_a_suite_tests can't be loaded: .*--exclude")

    def test_what_json_does_not_have_is_refused(self) -> None:
        """As YAML reads an unquoted date."""
        row = EncryptionKey(key_id="_IK_a_suite_tests", key_record={"Created": datetime(2026, 1, 1, tzinfo=UTC)})
        with pytest.raises(
            InvalidRecordError, match=r"the record of key _IK_a_suite_tests can't be loaded: .*--exclude"
        ):
            row.save()

    @pytest.mark.parametrize("name", ["a" * 256, "a\0b", "a\ud800"])
    def test_an_id_that_no_key_has_is_refused(self, name: str) -> None:
        """SQLite would store it: of any length, with anything in it."""
        document = key_row("", record(60))["fields"]["key_record"]
        with pytest.raises(InvalidRecordError, match=r"no key has the id _IK_a.*--exclude") as caught:
            EncryptionKey(key_id=f"_IK_{name}", created=datetime.fromtimestamp(60, UTC), key_record=document).save()
        assert str(caught.value).isprintable()
        assert keys_of() == {}

    def test_the_record_says_when_it_was_created(self, write: Write) -> None:
        """The column is another moment where the dump was made without USE_TZ, in another time zone."""
        made = record(NOW - DAY, parent=SK_ID)
        load(write(key_row("_IK_a_suite_tests", made, created="2001-02-03T04:05:06Z")))
        assert DatabaseMetastore("default").load(KeyMeta("_IK_a_suite_tests", made.created)) == made


class TestForeignKeys:
    @pytest.fixture
    def foreign(self) -> EnvelopeKeyRecord:
        """A system key that another project's master key wraps."""
        return EnvelopeKeyRecord(created=NOW - DAY, key=StaticKMS(bytes(32)).encrypt_key(bytes(32)))

    def test_a_system_key_that_would_stop_writes_is_refused(self, write: Write, foreign: EnvelopeKeyRecord) -> None:
        path = write(note_row(), key_row(SK_ID, foreign))
        is_refused(path, KMSError, rf"system key {SK_ID} created \d+ is not loaded, as this project can't open it")

    def test_another_services_system_key_is_loaded(self, write: Write, foreign: EnvelopeKeyRecord) -> None:
        load(write(key_row("_SK_of_others", foreign)))
        assert keys_of() == {KeyMeta("_SK_of_others", foreign.created): foreign}

    def test_another_databases_key_table_takes_them(self, write: Write, foreign: EnvelopeKeyRecord) -> None:
        load(write(key_row(SK_ID, foreign)), database="other")
        assert keys_of("other") == {KeyMeta(SK_ID, foreign.created): foreign}
        assert keys_of() == {}

    def test_another_alias_of_the_key_table_takes_none_that_would_stop_writes(
        self, write: Write, foreign: EnvelopeKeyRecord
    ) -> None:
        make_keys(days_old=2)
        DatabaseMetastore("other").store_many(keys_of())  # It looks as the very same table does.
        with pytest.raises(KMSError, match=rf"system key {SK_ID} created \d+ is not loaded"):
            load(write(key_row(SK_ID, foreign)), database="other")
        assert keys_of("other") == keys_of()


class TestInstances:
    def test_saving_a_key_in_another_database_replaces_none_there(self) -> None:
        theirs = record(60, 1)
        DatabaseMetastore("other").store("_IK_a_suite_tests", theirs)
        make_keys(days_old=0)
        for key in EncryptionKey.objects.all():
            key.save(using="other")
        assert keys_of("other") == keys_of() | {KeyMeta("_IK_a_suite_tests", 60): theirs}

    def test_a_saved_key_has_its_rows_own_primary_key(self) -> None:
        DatabaseMetastore("other").store("_IK_a_suite_tests", record(60, 1))
        make_keys(days_old=0)
        key = EncryptionKey.objects.get(key_id=SK_ID)
        key.save(using="other")
        assert EncryptionKey.objects.using("other").get(pk=key.pk) == key
        assert EncryptionKey.objects.using("other").get(pk=key.pk).key_id == SK_ID

    def test_what_was_changed_by_hand_is_not_saved(self) -> None:
        make_keys(days_old=0)
        key, before = EncryptionKey.objects.get(key_id=SK_ID), keys_of()
        key.key_record["Key"] = key_row(SK_ID, record(60))["fields"]["key_record"]["Key"]
        with pytest.raises(MetastoreError, match="keys are never replaced"):
            key.save()
        with pytest.raises(MetastoreError, match="keys are never replaced"):
            key.save(update_fields=["key_record"])
        assert keys_of() == before

    def test_who_listens_learns_whether_it_was_there(self, dump: Dump) -> None:
        make_keys(days_old=0)
        rows = dump("django_asherah").read_text()
        EncryptionKey.objects.exclude(key_id=SK_ID).delete()
        heard: dict[str, bool] = {}

        def listen(instance: Any, created: bool, **kwargs: Any) -> None:
            heard[instance.key_id] = created
            assert EncryptionKey.objects.get(pk=instance.pk).key_id == instance.key_id

        from django.db.models.signals import post_save

        post_save.connect(listen, sender=EncryptionKey)
        try:
            for item in serializers.deserialize("json", rows):
                item.save()
        finally:
            post_save.disconnect(listen, sender=EncryptionKey)
        assert heard.pop(SK_ID) is False
        assert set(heard.values()) == {True}


def revoked(each: EnvelopeKeyRecord) -> EnvelopeKeyRecord:
    return msgspec.structs.replace(each, revoked=True)
