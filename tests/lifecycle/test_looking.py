"""Whoever only looks does no harm: a process serves on from the keys that it has opened, whatever is asked of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from django.core.management import call_command

from django_asherah import engine, health, lifecycle
from django_asherah.envelope.records import KeyMeta
from django_asherah.exceptions import AsherahError, MetastoreError
from django_asherah.lifecycle.keys import list_keys
from django_asherah.lifecycle.reencryption import Options
from django_asherah.lifecycle.sharding import run_shard, split
from tests.lifecycle.conftest import ARNS, Run
from tests.testapp.models import Note

pytestmark = pytest.mark.django_db(transaction=True)

SK_ID, IK_ID = "_SK_suite_tests", "_IK_default_suite_tests"


def newest(key_id: str) -> KeyMeta:
    return next(key.meta for key in list_keys() if key.meta.key_id == key_id)


def run_a_shard() -> None:
    run_shard(**split(["testapp.Note.body"], shards=1)[0])


LOOKS: dict[str, Callable[[], Any]] = {
    "verify one key": lambda: lifecycle.verify_key(newest(IK_ID)),
    "verify one system key": lambda: lifecycle.verify_key(newest(SK_ID)),
    "verify all keys": lifecycle.verify_keys,
    "list": lambda: list(list_keys()),
    "plan a rotation": lambda: lifecycle.rotate(dry_run=True),
    "plan a rotation without regions": lambda: lifecycle.rotate(dry_run=True, allow_missing_regions=True),
    "verify a sample": lambda: lifecycle.verify_data(sample=1),
    "verify the data": lifecycle.verify_data,
    "re-encrypt a shard": run_a_shard,
    "plan a re-encryption": lambda: lifecycle.reencrypt(options=Options(dry_run=True)),
    "rewrap": lambda: lifecycle.rewrap(allow_missing_regions=True),
    "plan a rewrap": lambda: lifecycle.rewrap(dry_run=True),
    "plan a revocation": lambda: lifecycle.revoke(IK_ID, dry_run=True),
    "health": lambda: health.check(deep=True),
    "migrate": lambda: call_command("migrate", verbosity=0),
    "rotate": lifecycle.rotate,
    "revoke an old key": lambda: lifecycle.revoke("_IK_old_suite_tests"),
}


@pytest.fixture
def served(settings: Any, regional: Callable[..., None]) -> int:
    """A process that has served one row, and whose regions are all down by now; returns the row's primary key."""
    regional()
    engine.get_session("old").encrypt(b"x")
    note = Note.objects.create(body="text", other_body="other")
    assert Note.objects.get(pk=note.pk).body == "text"
    engine.get_factory().kms.down |= set(ARNS)  # type: ignore[attr-defined]
    return int(note.pk)


@pytest.mark.parametrize("look", LOOKS)
def test_with_every_region_down_reads_and_writes_go_on_after_it(served: int, look: str) -> None:
    with suppress(AsherahError):
        LOOKS[look]()
    assert Note.objects.get(pk=served).body == "text"
    Note.objects.filter(pk=served).update(body="new text")
    assert Note.objects.get(pk=served).body == "new text"


@pytest.mark.parametrize(
    "words",
    [
        ["asherah_status"],
        ["asherah_verify"],
        ["asherah_verify", "--data"],
        ["asherah_verify", "--data", "--sample", "1"],
        ["asherah_rotate", "--dry-run"],
        ["asherah_rotate", "--expired"],
        ["asherah_rewrap", "--dry-run"],
        ["asherah_reencrypt", "--dry-run"],
        ["asherah_reencrypt"],
    ],
    ids=" ".join,
)
def test_a_command_in_the_serving_process_takes_no_key_from_it(served: int, run: Run, words: list[str]) -> None:
    run(*words)
    assert Note.objects.get(pk=served).body == "text"


@pytest.mark.parametrize("look", ["verify one key", "verify all keys", "verify the data", "re-encrypt a shard"])
def test_it_proves_by_opening_anew_and_not_by_what_the_process_holds(served: int, look: str) -> None:
    found: list[str] = []
    match look:
        case "verify one key":
            found = [reason for _, reason in lifecycle.verify_key(newest(IK_ID)).problems]
        case "verify all keys":
            found = [reason for _, reason in lifecycle.verify_keys().problems]
        case "verify the data":
            found = [bad.reason for bad in lifecycle.verify_data(["testapp.Note.body"]).bad]
        case _:
            with pytest.raises(AsherahError, match="no region"):
                run_a_shard()
            return
    assert any("no region" in reason or "can't" in reason for reason in found)


def test_a_rotation_and_a_revocation_are_followed_by_the_process_that_did_them(regional: Callable[..., None]) -> None:
    regional()
    before = engine.get_session().newest_key().meta
    lifecycle.rotate()
    after = engine.get_session().newest_key().meta
    assert after == newest(IK_ID) != before
    lifecycle.revoke(IK_ID)
    assert engine.get_session().newest_key().meta not in (before, after)


def test_keys_of_ones_own_end_with_the_block(regional: Callable[..., None]) -> None:
    regional()
    record = engine.get_session().encrypt(b"x")
    running = engine.get_factory()
    with engine.own_keys() as factory:
        assert engine.get_factory() is factory is not running
        assert len(factory.intermediate_keys) == 0
        assert engine.get_session().decrypt(record) == b"x"
        assert len(factory.intermediate_keys) == 1
    assert engine.get_factory() is running


def test_a_look_that_fails_leaves_the_block_too(regional: Callable[..., None]) -> None:
    regional()
    running = engine.get_factory()
    with pytest.raises(MetastoreError), engine.own_keys():
        raise MetastoreError("down")
    assert engine.get_factory() is running
