"""Status, rotate, revoke and re-wrap."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management.base import CommandError
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_asherah import engine, lifecycle, signals
from django_asherah.audit import actor
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, decode_row, encode_key
from django_asherah.exceptions import KeyNotFoundError, KMSError
from django_asherah.lifecycle import KeyState
from django_asherah.metastores.database import DatabaseMetastore
from django_asherah.metastores.key_table import KeyRow
from django_asherah.models import EncryptionKey
from tests.lifecycle.conftest import Run
from tests.testapp.models import Note, Tenancy

pytestmark = pytest.mark.django_db(transaction=True)

SK_ID = "_SK_suite_tests"
DEFAULT_ID = "_IK_default_suite_tests"


def used_key(note: Note) -> KeyMeta:
    from tests.fields.helpers import raw

    return decode_row(raw(note, "body")).key.parent_key_meta


def write(body: str = "x") -> Note:
    return Note.objects.create(body=body)


def put(key_id: str, created: int, **members: Any) -> None:
    """Put a row into the key table."""
    record = EnvelopeKeyRecord(created=created, key=bytes(60), **members)
    engine.get_factory().metastore.store(key_id, record)


class TestStatus:
    def test_an_empty_table(self, run: Run) -> None:
        document = run("asherah_status")
        assert document["code"] == 0
        assert document["items"] == []
        assert document["summary"] == {
            "current_system_key": None,
            "next_expiry": None,
            "partitions": 0,
            "keys": {},
            "keys_of_others": 0,
            "other_rows": 0,
        }

    def test_each_key_with_its_state_and_parent(self, run: Run) -> None:
        write()
        Tenancy.objects.create(left="l")
        (system,) = [key for key in lifecycle.list_keys() if key.kind == "system"]
        document = run("asherah_status")
        assert document["summary"]["partitions"] == 2
        assert document["summary"]["keys"] == {"intermediate current": 2, "system current": 1}
        assert document["summary"]["current_system_key"] == str(system.meta)
        by_partition = {item["partition"]: item for item in document["items"]}
        assert set(by_partition) == {None, "default", "left"}
        assert by_partition["left"]["parent"] == str(system.meta)
        assert by_partition["left"]["expires"] == by_partition["left"]["created"] + 90 * 24 * 3600

    def test_states(self) -> None:
        now = int(time.time())
        old = now - 91 * 24 * 3600
        put(SK_ID, old)
        put(SK_ID, now - 600, revoked=True)
        put(SK_ID, now - 300)
        put(SK_ID, now - 200)
        assert [(key.meta.created, key.state) for key in lifecycle.list_keys()] == [
            (now - 200, KeyState.CURRENT),
            (now - 300, KeyState.SUPERSEDED),
            (now - 600, KeyState.REVOKED),
            (old, KeyState.EXPIRED),
        ]

    def test_rows_that_are_no_keys_and_keys_of_others(self, run: Run) -> None:
        write()
        put("__asherah_internal_config_drift_guard_v1__:abc", 946684800)
        put("_SK_other_product", 60)
        put("_IK_p_other_product", 60, parent_key_meta=KeyMeta("_SK_other_product", 60))
        document = run("asherah_status")
        assert document["code"] == 0
        assert (document["summary"]["other_rows"], document["summary"]["keys_of_others"]) == (1, 2)
        assert len(document["items"]) == 2
        assert len(run("asherah_status", "--all-services")["items"]) == 4

    def test_a_row_that_cant_be_read_is_a_problem(self, run: Run) -> None:
        EncryptionKey.objects.create(key_id=SK_ID, created=datetime.fromtimestamp(60, UTC), key_record={"a": 1})
        document = run("asherah_status")
        assert document["code"] == 1
        assert document["problems"][0]["at"] == SK_ID
        assert "not an envelope key record" in document["problems"][0]["reason"]

    def test_regions_missing_and_unexpected(self, run: Run, regional: Callable[..., None]) -> None:
        regional({"one": "arn-1", "two": "arn-2"})
        write()
        regional({"one": "arn-other", "three": "arn-3"})
        document = run("asherah_status", "--kind", "system")
        assert document["code"] == 1
        assert [problem["reason"] for problem in document["problems"]] == [
            "wrapped for another key of one: arn-1",
            "not wrapped for three",
            "wrapped for two, which is not configured",
        ]
        assert document["items"][0]["regions"] == {"one": "arn-1", "two": "arn-2"}
        assert run("asherah_status", "--region", "two")["items"] != []
        assert run("asherah_status", "--region", "three")["items"] == []

    def test_people_see_a_table_and_pages(self, run: Run) -> None:
        write()
        Tenancy.objects.create(left="l", right="r")
        text, code = run.text("asherah_status", "--limit", "2")
        assert code == 0
        assert "partitions: 3" in text
        assert "kind          partition" in text
        assert "(2 more: --offset 2)" in text


class TestRotate:
    def test_a_new_system_key_and_a_new_key_for_every_partition(self, run: Run) -> None:
        note = write("old")
        Tenancy.objects.create(left="l")
        before = {key.meta for key in lifecycle.list_keys()}
        document = run("asherah_rotate")
        assert (document["code"], document["summary"]["system_keys"], document["summary"]["intermediate_keys"]) == (
            0,
            1,
            2,
        )
        keys = {key.meta: key for key in lifecycle.list_keys()}
        assert len(set(keys) - before) == 3
        (system,) = [meta for meta in set(keys) - before if meta.key_id == SK_ID]
        assert all(keys[meta].parent == system for meta in set(keys) - before if meta != system)
        assert used_key(write("new")) in set(keys) - before
        note.refresh_from_db()
        assert note.body == "old"
        assert used_key(note) in before

    def test_twice_within_a_minute(self, run: Run) -> None:
        write()
        first = {item["key_id"]: item["created"] for item in run("asherah_rotate")["items"]}
        second = {item["key_id"]: item["created"] for item in run("asherah_rotate")["items"]}
        assert {key_id: created + 1 for key_id, created in first.items()} == second

    def test_dry_run_makes_nothing(self, run: Run) -> None:
        write()
        document = run("asherah_rotate", "--dry-run")
        assert document["dry_run"] is True
        assert document["items"] == [{"key_id": SK_ID, "created": None}, {"key_id": DEFAULT_ID, "created": None}]
        assert EncryptionKey.objects.count() == 2

    def test_one_partition(self, run: Run) -> None:
        Tenancy.objects.create(left="l", right="r")
        items = run("asherah_rotate", "--partition", "left")["items"]
        assert [item["key_id"] for item in items] == [SK_ID, "_IK_left_suite_tests"]

    def test_only_what_is_due(self, run: Run) -> None:
        write()
        assert run("asherah_rotate", "--expired")["items"] == []
        lifecycle.revoke(DEFAULT_ID)
        assert [item["key_id"] for item in run("asherah_rotate", "--expired")["items"]] == [DEFAULT_ID]
        lifecycle.revoke(SK_ID)
        assert [item["key_id"] for item in run("asherah_rotate", "--expired")["items"]] == [SK_ID, DEFAULT_ID]
        assert run("asherah_rotate", "--expired")["items"] == []

    def test_an_interrupted_rotation_is_continued(self, run: Run) -> None:
        Tenancy.objects.create(left="l", right="r")

        def interrupt(count: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            lifecycle.rotate(batch=1, progress=interrupt)
        document = run("asherah_rotate", "--resume")
        assert [item["key_id"] for item in document["items"]] == ["_IK_right_suite_tests"]
        newest = {}
        for key in lifecycle.list_keys():
            newest.setdefault(key.meta.key_id, key)
        assert {key.parent for key in newest.values() if key.parent} == {newest[SK_ID].meta}

    def test_other_services_in_the_table_are_left_alone(self) -> None:
        write()
        put("_SK_other_product", 60)
        put("_IK_p_other_product", 60, parent_key_meta=KeyMeta("_SK_other_product", 60))
        lifecycle.rotate()
        assert EncryptionKey.objects.filter(key_id__contains="_other_").count() == 2

    def test_refused_if_a_region_cant_wrap(self, run: Run, regional: Callable[..., None]) -> None:
        regional()
        write()
        regional(down=frozenset({"two"}))
        document = run("asherah_rotate")
        assert document["code"] == 1
        assert "two is down" in document["problems"][0]["reason"]
        assert "--allow-missing-regions" in document["problems"][0]["reason"]
        assert EncryptionKey.objects.count() == 2
        document = run("asherah_rotate", "--allow-missing-regions")
        assert document["summary"]["missing_regions"] == {"two": "two is down"}
        assert EncryptionKey.objects.count() == 4

    def test_it_is_audited_and_signalled(self, caplog: pytest.LogCaptureFixture) -> None:
        write()
        heard: list[tuple[str, int]] = []

        def listen(key_id: str, created: int, **kwargs: Any) -> None:
            heard.append((key_id, created))

        signals.key_rotated.connect(listen)
        try:
            with caplog.at_level(logging.INFO, "django_asherah.audit"):
                report = lifecycle.rotate()
        finally:
            signals.key_rotated.disconnect(listen)
        metas = [report.system_key, *report.intermediate_keys]
        assert heard == [(meta.key_id, meta.created) for meta in metas if isinstance(meta, KeyMeta)]
        assert [r.getMessage() for r in caplog.records if r.name == "django_asherah.audit"] == [
            f"{action} key_id={key_id} created={created} by={actor()}"
            for key_id, created in heard
            for action in ("created", "rotated")
        ]


class TestRevoke:
    def test_new_writes_leave_the_key_and_reads_stay(self, run: Run) -> None:
        note = write("old")
        meta = used_key(note)
        document = run("asherah_revoke", meta.key_id, str(meta.created))
        assert (document["code"], document["summary"]) == (0, {"revoked": True, "partitions": 1})
        assert document["items"] == [
            {"key_id": meta.key_id, "created": meta.created, "partitions": ["default"]},
        ]
        new = used_key(write("new"))
        assert new.key_id == meta.key_id
        assert new.created > meta.created  # By a second, or by a minute where one has just begun.
        note.refresh_from_db()
        assert note.body == "old"

    def test_a_system_key_affects_every_partition_below(self, run: Run) -> None:
        Tenancy.objects.create(left="l", right="r")
        assert run("asherah_revoke", SK_ID, "--latest")["items"][0]["partitions"] == ["left", "right"]

    def test_the_table_is_not_read_through(self) -> None:
        write()
        moment = datetime.fromtimestamp(60, UTC)
        record = {"Created": 60, "Key": "A" * 80, "ParentKeyMeta": {"KeyId": SK_ID, "Created": 60}}
        EncryptionKey.objects.bulk_create(
            EncryptionKey(key_id=f"_IK_{number}_suite_tests", created=moment, key_record=record)
            for number in range(3000)
        )
        for key_id, partitions in [(DEFAULT_ID, ["default"]), (SK_ID, ["default"])]:
            with CaptureQueriesContext(connection) as queries:
                assert lifecycle.revoke(key_id, dry_run=True).partitions == partitions
            assert len(queries) <= 4

    def test_a_row_that_cant_be_read_is_not_in_the_way(self) -> None:
        write()
        later = datetime.fromtimestamp(time.time() + 60, UTC)
        EncryptionKey.objects.create(key_id=SK_ID, created=later, key_record={"ParentKeyMeta": "Created"})
        assert lifecycle.revoke(SK_ID).partitions == ["default"]

    def test_twice_changes_nothing(self, run: Run) -> None:
        write()
        assert run("asherah_revoke", DEFAULT_ID, "--latest")["summary"]["revoked"] is True
        assert run("asherah_revoke", DEFAULT_ID, "--latest")["summary"]["revoked"] is False

    def test_dry_run_changes_nothing(self, run: Run) -> None:
        write()
        assert run("asherah_revoke", DEFAULT_ID, "--latest", "--dry-run")["summary"]["revoked"] is True
        assert [key.state for key in lifecycle.list_keys()] == [KeyState.CURRENT] * 2

    def test_the_record_stays_canonical(self) -> None:
        write()
        lifecycle.revoke(DEFAULT_ID)
        (row,) = DatabaseMetastore("default").versions(DEFAULT_ID)
        if connection.vendor != "postgresql":  # jsonb has an order and white space of its own
            assert bytes(row.text).startswith(b'{"Revoked":true,"Created":')

    def test_an_unknown_key_names_those_that_there_are(self, run: Run) -> None:
        meta = used_key(write())
        with pytest.raises(KeyNotFoundError, match=f"of this id there are: {meta.created}"):
            lifecycle.revoke(meta.key_id, 5)
        with pytest.raises(KeyNotFoundError, match="there is no key of this id"):
            lifecycle.revoke("_SK_nobody")
        assert run("asherah_revoke", "_SK_nobody", "--latest")["code"] == 1

    @pytest.mark.parametrize("words", [(), ("5", "--latest")])
    def test_the_key_must_be_clear(self, run: Run, words: tuple[str, ...]) -> None:
        with pytest.raises(CommandError) as caught:
            run("asherah_revoke", DEFAULT_ID, *words)
        assert caught.value.returncode == 2


class TestRewrap:
    def wrapped_regions(self) -> dict[str, str]:
        (system,) = [key for key in lifecycle.list_keys() if key.kind == "system"]
        return system.regions

    def test_a_region_is_added_removed_and_an_arn_replaced(self, run: Run, regional: Callable[..., None]) -> None:
        regional()
        note = write()
        before = [key.meta for key in lifecycle.list_keys()]
        regional({"one": "arn-1", "two": "arn-new", "three": "arn-3"})
        assert run("asherah_rewrap")["summary"] == {"rewrapped": 1, "unchanged": 0, "failed": 0}
        assert self.wrapped_regions() == {"one": "arn-1", "two": "arn-new", "three": "arn-3"}
        assert [key.meta for key in lifecycle.list_keys()] == before
        engine.reset()
        note.refresh_from_db()
        assert note.body == "x"
        regional({"three": "arn-3"})
        assert run("asherah_rewrap")["code"] == 0
        assert self.wrapped_regions() == {"three": "arn-3"}
        assert run("asherah_rewrap")["summary"] == {"rewrapped": 0, "unchanged": 1, "failed": 0}

    def test_a_region_that_failed_at_creation_is_repaired(self, run: Run, regional: Callable[..., None]) -> None:
        regional(down=frozenset({"two"}))
        write()
        assert self.wrapped_regions() == {"one": "arn-1"}
        regional()
        assert run("asherah_rewrap", "--dry-run")["summary"]["rewrapped"] == 1
        assert self.wrapped_regions() == {"one": "arn-1"}
        assert run("asherah_rewrap")["summary"]["rewrapped"] == 1
        assert self.wrapped_regions() == {"one": "arn-1", "two": "arn-2"}

    def test_all_or_nothing(self, run: Run, regional: Callable[..., None]) -> None:
        regional({"one": "arn-1"})
        write()
        regional(down=frozenset({"two"}))
        document = run("asherah_rewrap")
        assert (document["code"], document["summary"]["failed"]) == (1, 1)
        assert "two is down" in document["problems"][0]["reason"]
        assert self.wrapped_regions() == {"one": "arn-1"}

    def test_nobodys_change_is_overwritten(self, regional: Callable[..., None]) -> None:
        regional({"one": "arn-1"})
        write()
        regional()
        kms: Any = engine.get_factory().kms
        rewrap = kms.rewrap

        def rewrap_while_somebody_revokes(wrapped: bytes, **options: Any) -> bytes:
            (row,) = DatabaseMetastore("default").versions(SK_ID)
            record = EnvelopeKeyRecord(revoked=True, created=row.record().created, key=wrapped)
            assert DatabaseMetastore("default").replace(row, record)
            return rewrap(wrapped, **options)

        kms.rewrap = rewrap_while_somebody_revokes
        report = lifecycle.rewrap()
        assert next(iter(report.failed.values())).endswith("run this again")
        assert [key.state for key in lifecycle.list_keys() if key.kind == "system"] == [KeyState.REVOKED]

    def test_what_the_kms_itself_can_not_read_replaces_nothing(self, regional: Callable[..., None], run: Run) -> None:
        regional({"one": "arn-1"})
        write()
        before = EncryptionKey.objects.get(key_id__startswith="_SK_").key_record
        regional()
        kms: Any = engine.get_factory().kms
        kms.rewrap = lambda wrapped, **options: b"x" * 60
        heard: list[Any] = []

        def hear(**arguments: Any) -> None:
            heard.append(arguments)

        signals.key_rewrapped.connect(hear)
        try:
            report = lifecycle.rewrap()
        finally:
            signals.key_rewrapped.disconnect(hear)
        assert (report.rewrapped, [reason[:5] for reason in report.failed.values()], heard) == ([], ["not a"], [])
        assert EncryptionKey.objects.get(key_id__startswith="_SK_").key_record == before

    def test_a_system_key_that_can_not_be_read_is_a_problem(self, regional: Callable[..., None], run: Run) -> None:
        regional({"one": "arn-1"})
        write()
        broken = EncryptionKey.objects.get(key_id__startswith="_SK_")
        for key_id in (broken.key_id, "_SK_other_product"):
            EncryptionKey.objects.create(key_id=key_id, created=broken.created - timedelta(1), key_record={"a": 1})
        document = run("asherah_rewrap")
        assert (document["code"], document["summary"]) == (1, {"rewrapped": 0, "unchanged": 1, "failed": 0})
        (problem,) = document["problems"]
        assert problem["at"] == broken.key_id
        assert problem["reason"].startswith("not an envelope key record")

    def test_a_kms_without_regions_has_nothing_to_rewrap(self, run: Run) -> None:
        with pytest.raises(KMSError, match="StaticKMS wraps keys for no regions"):
            lifecycle.rewrap()
        assert run("asherah_rewrap")["code"] == 1

    def test_it_is_signalled_with_the_regions(self, regional: Callable[..., None]) -> None:
        regional({"one": "arn-1"})
        write()
        regional()
        heard: list[list[str]] = []

        def listen(regions: list[str], **kwargs: Any) -> None:
            heard.append(regions)

        signals.key_rewrapped.connect(listen)
        try:
            lifecycle.rewrap()
        finally:
            signals.key_rewrapped.disconnect(listen)
        assert heard == [["one", "two"]]


class TestKeyTable:
    def test_replace_is_compare_and_swap(self) -> None:
        write()
        metastore = DatabaseMetastore("default")
        (row,) = metastore.versions(SK_ID)
        created = row.record().created
        record = EnvelopeKeyRecord(created=created, key=b"n" * 60)
        text = row.text if isinstance(row.text, str) else row.text.decode()
        assert not metastore.replace(KeyRow(SK_ID, text.replace("A", "a").replace("B", "b") + " "), record)
        assert not metastore.replace(KeyRow(SK_ID, text.swapcase()), record)
        assert metastore.replace(row, record)
        assert not metastore.replace(row, record)
        assert metastore.load(KeyMeta(SK_ID, created)) == record
        if connection.vendor != "postgresql":
            assert metastore.read(KeyMeta(SK_ID, created)) == KeyRow(SK_ID, encode_key(record).encode())
        assert metastore.read(KeyMeta("_SK_nobody", 60)) is None


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    from django.core.management import load_command_class

    for name in ("status", "rotate", "revoke", "rewrap", "verify", "reencrypt"):
        command = load_command_class("django_asherah", f"asherah_{name}")
        command.create_parser("manage.py", f"asherah_{name}").print_help()
        shown = capsys.readouterr().out
        assert "--json" in shown
        assert "--database ALIAS" in shown
        assert ("--dry-run" in shown) is command.writes


def test_database_names_the_key_tables_alias(run: Run) -> None:
    write()
    assert run("asherah_status", "--database", "default")["summary"]["partitions"] == 1
    with pytest.raises(CommandError, match=r"which is not in settings\.DATABASES") as caught:
        run("asherah_status", "--database", "nowhere")
    assert caught.value.returncode == 2
