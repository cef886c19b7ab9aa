"""Rows that are no sound keys, beside sound ones: they are reported, and every command goes on."""

from __future__ import annotations

from typing import Any

import boto3
import pytest

from django_asherah import engine, health, lifecycle
from django_asherah.envelope.records import MAX_CREATED, KeyMeta, decode_row
from django_asherah.lifecycle import KeyState
from django_asherah.metastores.database import DatabaseMetastore
from tests.databases import record
from tests.lifecycle.conftest import Run
from tests.lifecycle.stores import BASE
from tests.moto_servers import ACCESS, MotoRegion, dynamodb_table
from tests.unsound import COLUMNS, COPIED, RECORDS, plant

pytestmark = pytest.mark.django_db(transaction=True)

SK_ID = "_SK_suite_tests"
IK_ID = "_IK_default_suite_tests"
COPIED_AT = 1_798_761_600  # 2027-01-01T00:00:00Z
UNSOUND = [*((column, None) for column in COLUMNS), *((COPIED, text) for text in RECORDS)]


@pytest.fixture
def made(settings: Any) -> dict[str, KeyMeta]:
    """A sound system key and a sound intermediate key."""
    settings.ASHERAH = {
        **BASE,
        "KMS": "tests.regional.PretendedAws",
        "KMS_OPTIONS": {"arns": {"one": "arn-1"}, "down": set()},
    }
    engine.get_session().encrypt(b"")
    return {key.meta.key_id: key.meta for key in lifecycle.list_keys()}


def plant_both(column: str, text: str | None) -> None:
    """Plant one row for the id of each."""
    plant("default", SK_ID, column, text or record(COPIED_AT - 77, 5))
    plant("default", IK_ID, column, text or record(COPIED_AT - 77, 5, SK_ID))
    engine.reset()


@pytest.mark.parametrize(("column", "text"), UNSOUND)
def test_every_command_goes_on_and_what_looks_reports_them(
    run: Run, made: dict[str, KeyMeta], column: str, text: str | None
) -> None:
    plant_both(column, text)

    status = run("asherah_status")
    assert status["code"] == 1
    assert sorted(problem["at"] for problem in status["problems"]) == [IK_ID, SK_ID]
    assert status["summary"]["current_system_key"] == str(made[SK_ID])
    assert {(item["key_id"], item["state"]) for item in status["items"]} == {(SK_ID, "current"), (IK_ID, "current")}
    shown, code = run.text("asherah_status")
    assert code == 1
    assert "1 intermediate current, 1 system current" in shown
    verified = run("asherah_verify")
    assert verified["code"] == 1
    assert verified["problems"] == status["problems"]
    assert verified["summary"] == {"system_keys": 1, "intermediate_keys": 1}
    found = health.check(deep=True)
    assert found.ok
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith(f"a row of key {SK_ID} is no key to write under: ")
    assert [key.meta for key in lifecycle.list_keys()] == [made[IK_ID], made[SK_ID]]


@pytest.mark.parametrize(("column", "text"), UNSOUND)
def test_keys_are_rotated_revoked_and_wrapped_anew_beside_them(
    run: Run, made: dict[str, KeyMeta], settings: Any, column: str, text: str | None
) -> None:
    plant_both(column, text)

    assert run("asherah_rotate", "--dry-run")["code"] == 0
    assert run("asherah_rotate", "--dry-run", "--partition", "default")["code"] == 0
    arns = {"one": "arn-1", "two": "arn-2"}
    settings.ASHERAH = {**settings.ASHERAH, "KMS_OPTIONS": {"arns": arns, "down": set()}}
    report = lifecycle.rewrap()
    assert report.rewrapped == [made[SK_ID]]
    assert [key_id for key_id, _ in report.unreadable] == [SK_ID]
    assert lifecycle.revoke(SK_ID).meta == made[SK_ID]
    assert lifecycle.revoke(IK_ID, dry_run=True).meta == made[IK_ID]
    assert {key.meta: key.state for key in lifecycle.list_keys()} == {
        made[SK_ID]: KeyState.REVOKED,
        made[IK_ID]: KeyState.CURRENT,
    }
    check_that_rotation_goes_on(made, run)


def check_that_rotation_goes_on(made: dict[str, KeyMeta], run: Run) -> None:
    """Rotate; check that the newest keys are new ones, and are written under by a process that starts anew."""
    assert run("asherah_rotate")["code"] == 0
    current = {key.meta.key_id: key.meta for key in lifecycle.list_keys() if key.state is KeyState.CURRENT}
    assert current.keys() == made.keys()
    assert not set(current.values()) & set(made.values())
    engine.reset()
    text = engine.get_session().encrypt(b"after")
    assert decode_row(text).key.parent_key_meta == current[IK_ID]
    engine.reset()
    assert engine.get_session().decrypt(text) == b"after"


ITEMS: list[tuple[str, Any]] = [
    ("1798761600", {"M": {"Created": {"N": "1798761523"}, "Key": {"S": "A" * 80}}}),
    ("1E+30", {"M": {"Created": {"N": "1795478400"}, "Key": {"S": "A" * 80}}}),
    ("-5", {"M": {"Created": {"N": "1795478400"}, "Key": {"S": "A" * 80}}}),
    ("1.5", {"M": {"Created": {"N": "1"}, "Key": {"S": "A" * 80}}}),
    ("1798761600", {"M": {"Created": {"S": "1798761600"}, "Key": {"S": "A" * 80}}}),
    ("1798761600", {"M": {}}),
    ("1798761600", {"S": "text"}),
    ("1798761600", None),
]


@pytest.mark.slow
@pytest.mark.parametrize(("created", "key_record"), ITEMS)
def test_the_same_in_dynamodb(
    run: Run, settings: Any, west: MotoRegion, created: str, key_record: dict[str, Any] | None
) -> None:
    session: Any = boto3.Session
    options = {"region": west.region, "endpoint_url": west.url, "session": session(**ACCESS)}
    kms = {"KMS": "tests.regional.PretendedAws", "KMS_OPTIONS": {"arns": {"one": "arn-1"}, "down": set()}}
    settings.ASHERAH = {**BASE, **kms, "METASTORE": "dynamodb", "METASTORE_OPTIONS": options}
    with dynamodb_table(west) as client:
        engine.get_session().encrypt(b"")
        made = {key.meta.key_id: key.meta for key in lifecycle.list_keys()}
        for key_id in made:
            item = {"Id": {"S": key_id}, "Created": {"N": created}} | ({"KeyRecord": key_record} if key_record else {})
            client.put_item(TableName="EncryptionKey", Item=item)
        engine.reset()

        for command in ("asherah_status", "asherah_verify"):
            document = run(command)
            assert (document["code"], sorted(problem["at"] for problem in document["problems"])) == (1, sorted(made))
        assert len(health.check(deep=True).warnings) == 1
        assert run("asherah_rotate", "--dry-run")["code"] == 0
        assert [key_id for key_id, _ in lifecycle.rewrap().unreadable] == [SK_ID]
        assert lifecycle.revoke(SK_ID).meta == made[SK_ID]
        check_that_rotation_goes_on(made, run)


def test_the_newest_of_a_partition_is_found_beside_them(run: Run, made: dict[str, KeyMeta]) -> None:
    plant_both(COPIED, None)

    assert lifecycle.rotate(partitions=["default"], resume=True, dry_run=True).intermediate_keys == []


def test_what_is_wrong_is_said(run: Run, made: dict[str, KeyMeta]) -> None:
    plant_both(COPIED, None)

    said = (
        "it is stored as created 1798761600, but its record says 1798761523 (2026-12-31 23:58:43 UTC), so that nothing "
        "written under it could be read: correct that, or remove the row"
    )
    assert {problem["reason"] for problem in run("asherah_status")["problems"]} == {said}


def test_an_intermediate_key_that_names_no_system_key_is_reported(run: Run, made: dict[str, KeyMeta]) -> None:
    DatabaseMetastore("default").store(IK_ID, record(made[IK_ID].created - 60, 5))

    for command in ("asherah_status", "asherah_verify"):
        (problem, *_) = run(command)["problems"]
        assert problem["at"] == f"{IK_ID} created {made[IK_ID].created - 60}"
        assert problem["reason"] == "its record names no system key, so that it opens nothing: remove the row"


def test_health_names_the_first_ten(made: dict[str, KeyMeta]) -> None:
    for second in range(10, 22):
        plant("default", SK_ID, f"'2027-01-01 00:00:{second}'", "{}")

    warnings = health.check(deep=True).warnings

    assert len(warnings) == 11
    assert warnings[-1] == f"2 more rows of key {SK_ID} are none either"


def test_a_key_that_expires_after_the_end_of_time_is_shown(run: Run, made: dict[str, KeyMeta]) -> None:
    DatabaseMetastore("default").store("_IK_last_suite_tests", record(MAX_CREATED, 1, SK_ID))

    shown, code = run.text("asherah_status")
    assert code == 1
    assert "ahead of this host's clock" in shown
    assert "9999-12-31 23:59:59" in shown
    assert "after the year 9999" in shown
    (item,) = run("asherah_status", "--partition", "last")["items"]
    assert (item["created"], item["expires"]) == (MAX_CREATED, MAX_CREATED + 90 * 86_400)
    assert {problem["at"] for problem in run("asherah_verify")["problems"]} == {
        f"_IK_last_suite_tests created {MAX_CREATED}"
    }
