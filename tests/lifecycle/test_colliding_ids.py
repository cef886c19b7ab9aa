"""Service app, product pay, suffix eu, partition t1; and service pay, product eu, partition t1_app: one key id."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from django_asherah import lifecycle
from django_asherah.envelope.records import KeyMeta
from django_asherah.exceptions import PartitionMismatchError
from django_asherah.models import EncryptionKey
from tests.admin.conftest import LIST
from tests.databases import as_asherah
from tests.fields.helpers import record_of
from tests.lifecycle.conftest import Run
from tests.testapp.models import Compact, Note

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def as_app(settings: Settings) -> Callable[[], None]:
    def as_app() -> None:
        settings.ASHERAH = as_asherah(SERVICE="app", PRODUCT="pay", KEY_SUFFIX="eu", PARTITION="t1")

    return as_app


@pytest.fixture
def as_pay(settings: Settings) -> Callable[[], None]:
    def as_pay() -> None:
        settings.ASHERAH = as_asherah(SERVICE="pay", PRODUCT="eu", KEY_SUFFIX="", PARTITION="t1_app")

    return as_pay


@pytest.fixture(autouse=True)
def _theirs(as_pay: Callable[[], None], as_app: Callable[[], None]) -> None:
    """The process goes on as app, over rows that pay has written."""
    as_pay()
    Note.objects.create(body="theirs", other_body="theirs")
    Compact.objects.create(body="theirs", plain="theirs")
    assert {row.key_id for row in EncryptionKey.objects.all()} == {"_SK_pay_eu", "_IK_t1_app_pay_eu", "_IK_left_pay_eu"}
    as_app()


def test_no_field_reads_the_others_values() -> None:
    for row, name in (
        (Note.objects.get(), "body"),
        (Compact.objects.get(), "body"),
        (Compact.objects.get(), "plain"),
    ):
        with pytest.raises(PartitionMismatchError, match="another service or product"):
            getattr(row, name)


@pytest.mark.parametrize("words", [(), ("--all",), ("--moved",), ("--all", "--moved")])
def test_no_command_takes_the_others_values(run: Run, as_pay: Callable[[], None], words: tuple[str, ...]) -> None:
    columns = ["testapp.Note", "testapp.Compact.body", "testapp.Compact.plain"]
    before = [record_of(Note.objects.get(), "body"), record_of(Compact.objects.get(), "body")]
    assert run("asherah_verify", "--data", *columns)["code"] == 1
    document = run("asherah_reencrypt", *columns, *words)
    assert (document["code"], document["summary"]["bad"], document["summary"]["rewritten"]) == (1, 4, {})
    assert [record_of(Note.objects.get(), "body"), record_of(Compact.objects.get(), "body")] == before
    as_pay()
    assert Note.objects.get().body == Compact.objects.get().body == "theirs"
    assert run("asherah_verify", "--data", *columns)["code"] == 0


def test_both_write_and_read_on_through_rotations(run: Run, as_app: Any, as_pay: Any) -> None:
    mine = Note.objects.create(body="mine")
    theirs = Note.objects.exclude(pk=mine.pk).get()
    for become in (as_pay, as_app, as_pay, as_app):
        become()
        document = run("asherah_rotate")
        assert (document["code"], document["problems"]) == (0, [])
        assert run("asherah_verify")["code"] == 0
        row = mine if become is as_app else theirs
        assert Note.objects.get(pk=row.pk).body == ("mine" if row is mine else "theirs")
        assert run("asherah_reencrypt", "testapp.Note.body")["summary"]["rewritten"] == {"testapp.Note.body": 1}
        assert Note.objects.get(pk=row.pk).body == ("mine" if row is mine else "theirs")


def test_status_and_admin_tell_the_others_keys(run: Run, client: Client) -> None:
    Note.objects.create(body="mine")
    summary = run("asherah_status")["summary"]
    assert (summary["keys_of_others"], summary["partitions"]) == (3, 1)
    assert summary["keys"] == {"intermediate current": 1, "system current": 1}
    client.force_login(User.objects.create_superuser("root"))
    assert client.get(LIST).content.decode().count("another service") == 3


def test_the_others_newer_key_takes_no_place_of_ours(run: Run, as_app: Any, as_pay: Any) -> None:
    """It neither makes our newest key look superseded, nor is it what the latest means."""
    Note.objects.create(body="mine")
    (ours,) = run("asherah_status", "--partition", "t1")["items"]
    as_pay()
    lifecycle.rotate()
    (newest, *_) = (key.meta for key in lifecycle.list_keys() if key.meta.key_id == "_IK_t1_app_pay_eu")
    as_app()

    assert newest.created > ours["created"]
    status = run("asherah_status")
    assert status["summary"]["keys"] == {"intermediate current": 1, "system current": 1}
    assert [item["state"] for item in run("asherah_status", "--partition", "t1")["items"]] == ["current"]
    assert lifecycle.revoke("_IK_t1_app_pay_eu").meta == KeyMeta("_IK_t1_app_pay_eu", ours["created"])
    assert lifecycle.revoke(newest.key_id, newest.created).meta == newest


def test_revoking_the_others_key_names_no_partition_of_ours() -> None:
    assert lifecycle.revoke("_SK_pay_eu").partitions.total == 0
