"""What others do to a key or a value while it is worked on: it is said, and nothing of theirs is overwritten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from django_asherah import engine, lifecycle
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta
from django_asherah.exceptions import KeyNotFoundError, MetastoreError
from django_asherah.metastores.key_table import KeyRow
from django_asherah.testing import FakeKMS, override_asherah
from tests.databases import execute
from tests.lifecycle import stores
from tests.lifecycle.conftest import Run
from tests.testapp.models import Note

SK_ID, IK_ID = "_SK_suite_tests", "_IK_default_suite_tests"


class SharedMetastore(stores.WholeMetastore):
    """One in which others do something each time before a key's rows are read, or before one is replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.before_read: list[Callable[[], None]] = []
        self.before_replace: Callable[[KeyMeta], None] = lambda meta: None

    def versions(self, key_id: str) -> list[KeyRow]:
        if self.before_read:
            self.before_read.pop(0)()
        return super().versions(key_id)

    def replace(self, row: KeyRow, record: EnvelopeKeyRecord) -> bool:
        self.before_replace(KeyMeta(row.key_id, record.created))
        return super().replace(row, record)


def nothing() -> None:
    """What happens mostly."""


@pytest.fixture
def shared(settings: Any) -> SharedMetastore:
    metastore = SharedMetastore()
    kms = {"KMS": "tests.regional.PretendedAws", "KMS_OPTIONS": {"arns": {"one": "arn-1"}}}
    settings.ASHERAH = {**stores.BASE, **kms, **stores.use(metastore)}
    engine.get_session().encrypt(b"")
    return metastore


class TestKeys:
    def test_a_key_that_is_deleted_is_not_revoked(self, shared: SharedMetastore) -> None:
        shared.before_read = [nothing, shared.texts.clear]
        with pytest.raises(KeyNotFoundError, match=rf"key {IK_ID} created \d+ was deleted meanwhile"):
            lifecycle.revoke(IK_ID)
        assert shared.texts == {}

    def test_a_key_whose_record_never_rests_is_given_up(self, shared: SharedMetastore) -> None:
        def change(meta: KeyMeta) -> None:
            shared.texts[meta] += " "

        shared.before_replace = change
        with pytest.raises(MetastoreError, match=r"could not be revoked: others keep changing its record"):
            lifecycle.revoke(IK_ID)
        assert [key.state for key in lifecycle.list_keys()] == ["current", "current"]

    def test_a_key_that_another_revokes_first_is_not_changed_again(self, shared: SharedMetastore) -> None:
        def revoke(meta: KeyMeta) -> None:
            shared.before_replace = lambda meta: None
            assert lifecycle.revoke(meta.key_id).changed

        shared.before_replace = revoke
        assert not lifecycle.revoke(IK_ID).changed

    def test_a_key_that_is_deleted_is_not_re_wrapped(self, shared: SharedMetastore, run: Run) -> None:
        shared.before_read = [nothing, shared.texts.clear]
        document = run("asherah_rewrap")
        assert (document["code"], document["summary"]) == (1, {"rewrapped": 0, "unchanged": 0, "failed": 1})
        assert document["problems"][0]["reason"].endswith(" was deleted meanwhile")
        assert shared.texts == {}

    def test_a_key_that_is_deleted_is_not_verified(self, shared: SharedMetastore) -> None:
        shared.before_read = [shared.texts.clear]
        report = lifecycle.verify_keys()
        assert [reason.partition(" was ")[2] for _, reason in report.problems] == ["deleted meanwhile"]
        assert report.system_keys == 0

    def test_a_key_of_another_time_is_none_to_verify(self, shared: SharedMetastore) -> None:
        meta = KeyMeta(SK_ID, 60)
        assert lifecycle.verify_key(meta).problems == [(str(meta), f"there is no readable key {meta}")]


@pytest.mark.django_db(transaction=True)
class TestValues:
    def test_a_value_that_others_keep_writing_is_left_and_named(self, run: Run) -> None:
        note = Note.objects.create(body="x", other_body="")
        lifecycle.rotate()
        engine.reset()

        with connection.execute_wrapper(self.write_first):
            document = run("asherah_reencrypt", "testapp.Note.body")

        assert document["code"] == 1
        assert document["problems"] == [
            {"at": f"testapp.Note.body pk={note.pk}", "reason": "others keep writing it; run this again"}
        ]
        assert document["summary"]["rewritten"] == {"testapp.Note.body": 0}
        assert Note.objects.get().body == "x"
        assert run("asherah_reencrypt", "testapp.Note.body")["summary"]["rewritten"] == {"testapp.Note.body": 1}

    def write_first(self, execute_it: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        """Let somebody put another record into the row before each update of it."""
        if sql.startswith("UPDATE") and "testapp_note" in sql and params != self.theirs:
            self.theirs = (self.records.pop(),)
            execute("default", "UPDATE testapp_note SET body = %s", self.theirs)
        return execute_it(sql, params, many, context)

    @pytest.fixture(autouse=True)
    def _records(self, transactional_db: None) -> None:
        self.theirs: Any = None
        self.records = [engine.get_session().encrypt(b"x") for _ in range(50)]

    def test_of_a_key_that_no_region_unwraps_no_region_is_asked_for_each_value_and_every_value_is_named(self) -> None:
        kms = FakeKMS("a", "b")
        with override_asherah(kms, METASTORE="database"):
            Note.objects.bulk_create(Note(body=str(number)) for number in range(10))
            kms.switch_off()
            kms.calls.clear()

            report = lifecycle.verify_data(["testapp.Note.body"])

            assert [bad.reason.partition(":")[0] for bad in report.bad] == ["KMSError"] * 10
            assert len({bad.reason for bad in report.bad}) == 1
            # When the keys of all the values are loaded together, and for the first value; for none of the others.
            assert kms.calls == {("a", "Decrypt"): 2, ("b", "Decrypt"): 2}
