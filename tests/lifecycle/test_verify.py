"""Verify: keys in every region, and data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.management.base import CommandError
from django.db import connection

from django_asherah import engine, lifecycle
from django_asherah.conf import Settings
from django_asherah.envelope.records import KeyMeta
from django_asherah.lifecycle import KeyState
from django_asherah.lifecycle.columns import UnknownColumnError
from django_asherah.models import EncryptionKey
from tests.databases import execute
from tests.fields.helpers import raw, set_raw
from tests.lifecycle.conftest import BASE, Run
from tests.memory import peak_of
from tests.regional import PretendedAws
from tests.testapp.models import Child, Document, Note, Parent, Tenancy

pytestmark = pytest.mark.django_db(transaction=True)


class RegionsThatDisagree(PretendedAws):
    """A KMS some of whose regions unwrap whatever the test says."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.keys: dict[str, bytes] = {}
        self.unwrapped: list[bytearray] = []

    def decrypt_key_in(self, region: str, wrapped: bytes) -> bytearray:
        key = super().decrypt_key_in(region, wrapped)
        self.unwrapped.append(bytearray(self.keys.get(region, key)))
        return self.unwrapped[-1]

    def decrypt_key(self, wrapped: bytes) -> bytearray:
        return super().decrypt_key_in(next(iter(self.master_keys)), wrapped)


class TestKeys:
    def test_nothing_to_verify_is_a_failure(self, run: Run) -> None:
        document = run("asherah_verify")
        assert document["code"] == 1
        assert document["problems"] == [{"at": "keys", "reason": "there are none, so nothing was proven"}]

    def test_every_key_opens(self, run: Run) -> None:
        Tenancy.objects.create(left="l", right="r")
        document = run("asherah_verify")
        assert (document["code"], document["ok"]) == (0, True)
        assert document["summary"] == {"system_keys": 1, "intermediate_keys": 2}

    def test_a_region_that_cant_unwrap_is_a_problem_although_others_can(
        self, run: Run, regional: Callable[..., None]
    ) -> None:
        regional()
        Note.objects.create(body="x")
        assert run("asherah_verify")["code"] == 0
        regional(down=frozenset({"two"}))
        document = run("asherah_verify")
        assert document["code"] == 1
        assert [problem["reason"] for problem in document["problems"]] == ["two is down", "two can't"]

    def test_a_key_not_wrapped_for_a_region_is_a_problem(self, run: Run, regional: Callable[..., None]) -> None:
        regional(down=frozenset({"two"}))
        Note.objects.create(body="x")
        regional()
        assert [p["reason"] for p in run("asherah_verify")["problems"]] == ["not wrapped for two", "two can't"]

    def test_a_region_that_unwraps_another_key_is_a_problem(self, run: Run, settings: Any) -> None:
        """Values open as long as the preferred region answers; with the other one they would be lost."""
        arns = {"one": "arn-1", "two": "arn-2", "three": "arn-3"}
        kms_class = f"{__name__}.{RegionsThatDisagree.__name__}"
        settings.ASHERAH = {**BASE, "KMS": kms_class, "KMS_OPTIONS": {"arns": arns}}
        Note.objects.create(body="x")
        assert run("asherah_verify")["code"] == 0
        kms: Any = engine.get_factory().kms
        kms.keys = {"two": b"2" * 32}
        system = next(key.meta for key in lifecycle.list_keys() if key.kind == "system")

        report = lifecycle.verify_keys()

        found = [(str(system), "two unwraps another key than the regions before it")]
        assert report.problems == found
        assert lifecycle.verify_key(system).problems == found
        document = run("asherah_verify")
        assert document["code"] == 1
        assert [(problem["at"], problem["reason"]) for problem in document["problems"]] == found

        kms.keys = {"one": b"1" * 32}
        names = [reason.partition(" ")[0] for _, reason in lifecycle.verify_key(system).problems]
        assert names == ["two", "three"]
        assert not any(bytes(key).strip(bytes(1)) for key in kms.unwrapped)

    def test_an_intermediate_key_that_does_not_open_is_named(self, run: Run) -> None:
        Note.objects.create(body="x")
        row = EncryptionKey.objects.get(key_id__startswith="_IK_")
        row.key_record["Key"] = "A" * 80
        EncryptionKey.objects.filter(pk=row.pk).update(key_record=row.key_record)
        document = run("asherah_verify")
        assert document["code"] == 1
        assert document["problems"][0]["at"].startswith("_IK_default_suite_tests created ")
        assert "could not be opened" in document["problems"][0]["reason"]

    def test_another_master_key_is_a_problem(self, run: Run, settings: Any) -> None:
        Note.objects.create(body="x")
        settings.ASHERAH = {**settings.ASHERAH, "KMS_OPTIONS": {"key": "11" * 32}}
        assert run("asherah_verify")["code"] == 1

    def test_another_master_key_is_a_problem_though_no_intermediate_key_needs_it(self, run: Run, settings: Any) -> None:
        Note.objects.create(body="x")
        EncryptionKey.objects.filter(key_id__startswith="_IK_").delete()
        assert run("asherah_verify")["code"] == 0
        settings.ASHERAH = {**settings.ASHERAH, "KMS_OPTIONS": {"key": "11" * 32}}
        (problem,) = run("asherah_verify")["problems"]
        assert problem["at"].startswith("_SK_suite_tests created ")
        assert "the static master key does not open it" in problem["reason"]


class TestData:
    def test_no_value_read_is_a_failure(self, run: Run) -> None:
        document = run("asherah_verify", "--data")
        assert document["code"] == 1
        assert document["problems"] == [{"at": "data", "reason": "no value was read, so nothing was proven"}]

    def test_every_column_of_every_model_once(self, run: Run) -> None:
        Note.objects.create(body="x")
        Note.objects.create(body=None)
        Child.objects.create(secret="s", child_secret="c")
        Document.objects.create(doc={"a": 1})
        document = run("asherah_verify", "--data")
        assert document["code"] == 0
        assert document["summary"]["opened"] == {
            "testapp.Note.body": 1,
            "testapp.Note.other_body": 2,
            "testapp.Parent.secret": 1,
            "testapp.Child.child_secret": 1,
            "testapp.Document.doc": 1,
            "testapp.Document.encoded": 1,
        }
        assert list(document["summary"]["values_by_key"].values()) == [7]
        assert list(document["summary"]["values_by_system_key"].values()) == [7]

    def test_what_each_key_is_still_needed_for(self, run: Run) -> None:
        Tenancy.objects.create(left="l", left_too="l", right="r")
        lifecycle.rotate()
        Tenancy.objects.create(left="l")
        bad = Tenancy.objects.create(left="damaged")
        set_raw(bad, "left", raw(bad, "left").replace('"Data":"', '"Data":"AAAA'))
        summary = run("asherah_verify", "--data", "testapp.Tenancy")["summary"]
        keys = {(key.meta.key_id, key.state): str(key.meta) for key in lifecycle.list_keys()}
        assert summary["values_by_key"] == {
            keys["_IK_left_suite_tests", KeyState.CURRENT]: 2,  # The damaged one is not given up.
            keys["_IK_left_suite_tests", KeyState.SUPERSEDED]: 2,
            keys["_IK_right_suite_tests", KeyState.SUPERSEDED]: 1,
        }
        assert summary["values_by_system_key"] == {
            keys["_SK_suite_tests", KeyState.CURRENT]: 2,
            keys["_SK_suite_tests", KeyState.SUPERSEDED]: 3,
        }
        assert summary["bad"] == 1

    def test_each_bad_value_is_reported_and_the_others_are_still_read(self, run: Run) -> None:
        notes = [Note.objects.create(body=str(number)) for number in range(5)]
        set_raw(notes[1], "body", "plain text")
        set_raw(notes[3], "body", engine.get_session("elsewhere").encrypt(b"x"))
        document = run("asherah_verify", "--data", "testapp.Note")
        assert document["code"] == 1
        assert document["summary"]["opened"] == {"testapp.Note.body": 3, "testapp.Note.other_body": 5}
        assert [(item["model"], item["field"], item["pk"]) for item in document["items"]] == [
            ("testapp.Note", "body", str(notes[1].pk)),
            ("testapp.Note", "body", str(notes[3].pk)),
        ]
        assert document["items"][0]["reason"].startswith("InvalidRecordError: not a data row record")
        assert document["items"][1]["key"].startswith("_IK_elsewhere_suite_tests created ")
        assert "plain text" not in str(document)

    def test_values_of_a_key_that_is_gone_are_bad(self, run: Run) -> None:
        Note.objects.create(body="x", other_body="")
        EncryptionKey.objects.filter(key_id__startswith="_IK_").delete()
        document = run("asherah_verify", "--data", "testapp.Note.body")
        assert (document["code"], document["summary"]["bad"]) == (1, 1)
        assert document["items"][0]["reason"].startswith("KeyNotFoundError")

    def test_only_what_is_named(self, run: Run) -> None:
        Note.objects.create(body="x")
        Document.objects.create(doc=1)
        assert run("asherah_verify", "--data", "testapp.Document.doc")["summary"]["opened"] == {
            "testapp.Document.doc": 1
        }
        Child.objects.create(secret="s")
        named = run("asherah_verify", "--data", "testapp.Child")["summary"]["opened"]
        assert named == {"testapp.Parent.secret": 1, "testapp.Child.child_secret": 1}
        assert run("asherah_verify", "--data", "testapp.ParentProxy")["summary"]["opened"] == {
            "testapp.Parent.secret": 1
        }

    @pytest.mark.parametrize(
        "name", ["nothing", "testapp.Nobody", "testapp.Note.nothing", "testapp.Note.title", "a.b.c.d"]
    )
    def test_a_wrong_name_is_a_usage_error(self, run: Run, name: str) -> None:
        with pytest.raises(UnknownColumnError):
            lifecycle.verify_data([name])
        with pytest.raises(CommandError) as caught:
            run("asherah_verify", "--data", name)
        assert caught.value.returncode == 2

    @pytest.mark.parametrize("name", ["", "nothing", "a.b.c.d"])
    def test_what_can_be_no_name_is_told_how_to_write_one(self, name: str) -> None:
        with pytest.raises(UnknownColumnError) as caught:
            lifecycle.verify_data([name])
        assert str(caught.value) == f"{name!r} names no model or field: write app.Model or app.Model.field"

    def test_of_very_many_bad_values_the_first_thousand_are_listed_and_all_are_counted(self, run: Run) -> None:
        Note.objects.bulk_create(Note(body="x", other_body="") for _ in range(1001))
        execute("default", "UPDATE testapp_note SET body = 'damaged'")
        document = run("asherah_verify", "--data", "testapp.Note.body")
        assert (document["summary"]["bad"], len(document["items"])) == (1001, 1000)
        assert len(document["problems"]) == 1001
        assert document["problems"][-1] == {"at": "data", "reason": "1 more bad values"}

    def test_a_sample(self, run: Run) -> None:
        Note.objects.bulk_create(Note(body=str(number)) for number in range(20))
        assert run("asherah_verify", "--data", "testapp.Note.body", "--sample", "7")["summary"]["values"] == 7

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_several_processes_find_the_same(self, run: Run) -> None:
        if connection.vendor == "sqlite":
            with pytest.raises(CommandError, match="in memory can't be shared"):
                run("asherah_verify", "--data", "--parallel", "2")
            return
        notes = Note.objects.bulk_create([Note(body=str(number)) for number in range(300)])
        Parent.objects.bulk_create([Parent(secret=str(number)) for number in range(50)])
        set_raw(Note.objects.order_by("pk")[123], "body", "damaged")
        one = run("asherah_verify", "--data")
        many = run("asherah_verify", "--data", "--parallel", "3")
        assert one["summary"] == many["summary"]
        assert one["items"] == many["items"]
        assert len(notes) == 300
        assert many["summary"]["opened"]["testapp.Note.body"] == 299

    def test_plaintext_where_the_field_allows_it_is_counted(self, run: Run) -> None:
        note = Note.objects.create(body="x")
        field: Any = Note._meta.get_field("body")
        field.allow_plaintext = True
        try:
            set_raw(note, "body", "not encrypted yet")
            document = run("asherah_verify", "--data", "testapp.Note.body")
            assert (document["code"], document["summary"]["plaintext"]) == (0, {"testapp.Note.body": 1})
            note.refresh_from_db()
            assert note.body == "not encrypted yet"
            assert lifecycle.reencrypt(["testapp.Note.body"]).rewritten == {"testapp.Note.body": 1}
        finally:
            field.allow_plaintext = False
        note.refresh_from_db()
        assert note.body == "not encrypted yet"

    @pytest.mark.slow
    @pytest.mark.memory
    def test_memory_does_not_grow_with_the_rows(self) -> None:
        Note.objects.bulk_create(Note(body="x" * 200) for _ in range(2000))
        report, small = peak_of(lambda: lifecycle.verify_data(["testapp.Note.body"]))
        assert report.bad.total == 0
        Note.objects.bulk_create(Note(body="x" * 200) for _ in range(8000))
        report, large = peak_of(lambda: lifecycle.verify_data(["testapp.Note.body"]))
        assert report.bad.total == 0
        assert large < small * 1.3


def test_people_see_what_is_needed_and_what_is_wrong(run: Run) -> None:
    note = Note.objects.create(body="x")
    text, code = run.text("asherah_verify", "--data", "testapp.Note.body")
    assert code == 0
    assert "Opened 1 system keys and 1 intermediate keys." in text
    assert "testapp.Note.body: 1 values open." in text
    assert "Needed: _IK_default_suite_tests created " in text
    set_raw(note, "body", "")
    text, code = run.text("asherah_verify", "--data", "testapp.Note.body")
    assert code == 1
    assert f"testapp.Note.body pk={note.pk}: InvalidRecordError: " in text


def test_columns_name_their_key(run: Run) -> None:
    Note.objects.create(body="x")
    report = lifecycle.verify_data(["testapp.Note.body"])
    (meta,) = report.keys
    assert isinstance(meta, KeyMeta)
    assert meta.key_id == "_IK_default_suite_tests"
